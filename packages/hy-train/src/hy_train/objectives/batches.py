"""Which clips and captions are in which batch: a function of seed, step and rank alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    the batch of a step from the same bucket, so that none waits for another.
    """

    def __init__(
        self,
        buckets: Sequence[Bucket],
        sizes: Sequence[int],
        seed: int,
        steps: int,
        batch: int,
        caption_dropout: float,
        caption: Callable[[int, int, np.random.Generator], str],
        length: Callable[[str], int],
    ) -> None:
        """Take `sizes`, the clips of each bucket; `caption(bucket, index, rng)`; `length(caption)` in tokens."""
        self.buckets, self.sizes = buckets, sizes
        self.seed, self.steps, self.batch = seed, steps, batch
        self.caption_dropout, self.caption, self.length = caption_dropout, caption, length
        self._group: tuple[tuple[int, int], list[Rows]] | None = None

    def rows(self, step: int, rank: int) -> Rows:
        """Return the rows of the batch of a step and rank."""
        group, place = divmod(step, _GROUP)
        if self._group is None or self._group[0] != (group, rank):
            self._group = (group, rank), self._draw(group, rank)
        return self._group[1][place]

    def _draw(self, group: int, rank: int) -> list[Rows]:
        fraction = group * _GROUP / self.steps
        weights = np.array([one.sampling_weight * (fraction >= one.start_fraction) for one in self.buckets])
        shared = np.random.default_rng(seeded(self.seed, 3, group))
        chosen = shared.choice(len(self.buckets), _GROUP, p=weights / weights.sum())
        rng = np.random.default_rng(seeded(self.seed, 3, group, rank))
        batches: dict[int, Rows] = {}
        for bucket in map(int, np.unique(chosen)):
            places = rng.permutation(np.flatnonzero(chosen == bucket))
            rows = self.buckets[bucket].batch or self.batch
            indices = rng.integers(self.sizes[bucket], size=len(places) * rows)
            prompts = [
                "" if rng.random() < self.caption_dropout else self.caption(bucket, int(index), rng)
                for index in indices
            ]
            order = np.argsort([self.length(prompt) for prompt in prompts], kind="stable")
            for place, chunk in zip(places, np.array_split(order, len(places)), strict=True):
                batches[int(place)] = Rows(bucket, indices[chunk], [prompts[row] for row in chunk])
        return [batches[place] for place in range(_GROUP)]
