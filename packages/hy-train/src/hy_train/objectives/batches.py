"""Which clips and captions are in which batch: a function of seed, step and rank alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from hy_core.training import seeded

from hy_train.objectives.flow_config import Bucket

_GROUP = 8  # batches whose captions are drawn together and sorted by length


class Rows(NamedTuple):
    """The rows of a batch: a bucket, the indices [B] of its clips, and their captions ("" where dropped)."""

    bucket: int
    indices: np.ndarray
    prompts: list[str]


class BatchPlan:
    """Draw batches, eight steps at a time.

    Within such a group rows of similar caption length go into the same batch, so that little is padded. All ranks take
    the batch of a step from the same bucket, so that none waits for another. The clips of a bucket come in epochs: each
    of them once, in an order of the epoch, before any comes again, whatever the number of ranks.
    """

    def __init__(
        self,
        buckets: Sequence[Bucket],
        clips: Sequence[np.ndarray],
        seed: int,
        steps: int,
        batch: int,
        caption_dropout: float,
        caption: Callable[[int, int, np.random.Generator], str],
        length: Callable[[int, str], int],
    ) -> None:
        """Take the indices [N] of each bucket's `clips`; `caption(bucket, index, rng)`; `length(bucket, caption)`."""
        self.buckets, self.clips = buckets, clips
        self.seed, self.steps, self.batch = seed, steps, batch
        self.caption_dropout, self.caption, self.length = caption_dropout, caption, length
        self._drawn: tuple[tuple[int, int, int], list[Rows]] | None = None
        self._counted = (0, np.zeros(len(buckets), np.int64))
        self._order = lru_cache(2 * len(buckets))(self._shuffled)

    def size(self, bucket: int) -> int:
        """Return the rows of a rank's batch of a bucket."""
        return self.buckets[bucket].batch or self.batch

    def rows(self, step: int, rank: int, ranks: int = 1) -> Rows:
        """Return the rows of the batch of a step and rank."""
        group, place = divmod(step, _GROUP)
        key = (group, rank, ranks)
        if self._drawn is None or self._drawn[0] != key:
            self._drawn = key, self._draw(*key)
        return self._drawn[1][place]

    def _draw(self, group: int, rank: int, ranks: int) -> list[Rows]:
        chosen, before = self._chosen(group), self._batches_before(group)
        rng = np.random.default_rng(seeded(self.seed, 3, group, rank))
        batches: dict[int, Rows] = {}
        for bucket in map(int, np.unique(chosen)):
            places = rng.permutation(np.flatnonzero(chosen == bucket))
            count = len(places) * self.size(bucket)
            first = int(before[bucket]) * self.size(bucket) * ranks + count * rank
            indices = self._clips(bucket, first, count)
            prompts = [
                "" if rng.random() < self.caption_dropout else self.caption(bucket, int(index), rng)
                for index in indices
            ]
            order = np.argsort([self.length(bucket, prompt) for prompt in prompts], kind="stable")
            for place, chunk in zip(places, np.array_split(order, len(places)), strict=True):
                batches[int(place)] = Rows(bucket, indices[chunk], [prompts[row] for row in chunk])
        return [batches[place] for place in range(_GROUP)]

    def _chosen(self, group: int) -> np.ndarray:
        """The buckets of a group's steps, the same for all ranks."""
        fraction = group * _GROUP / self.steps
        weights = np.array([one.sampling_weight * (fraction >= one.start_fraction) for one in self.buckets])
        shared = np.random.default_rng(seeded(self.seed, 3, group))
        return shared.choice(len(self.buckets), _GROUP, p=weights / weights.sum())

    def _batches_before(self, group: int) -> np.ndarray:
        """How many batches each bucket has had before a group."""
        known, counts = (
            self._counted if self._counted[0] <= group else (0, np.zeros(len(self.buckets), np.int64))
        )
        counts = counts.copy()
        for earlier in range(known, group):
            counts += np.bincount(self._chosen(earlier), minlength=len(self.buckets))
        self._counted = (group, counts)
        return counts

    def _clips(self, bucket: int, first: int, count: int) -> np.ndarray:
        """The clips at positions `first` to `first + count` of all epochs of a bucket, one after the other."""
        size = len(self.clips[bucket])
        positions = np.arange(first, first + count)
        return np.array([self._order(bucket, int(p) // size)[int(p) % size] for p in positions], int)

    def _shuffled(self, bucket: int, epoch: int) -> np.ndarray:
        return np.random.default_rng(seeded(self.seed, 7, bucket, epoch)).permutation(self.clips[bucket])
