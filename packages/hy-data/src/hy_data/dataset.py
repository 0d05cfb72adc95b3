"""The cached features of a set as a PyTorch dataset, and a loader that can be stopped and continued anywhere.

source = SetSource("sets/", "256p")
data = CachedSet(source, model="pocket", captions=4)
sampler = BucketSampler(data.assignment, batch_sizes(source.buckets, clips=8), rank=rank, ranks=ranks)
loader = Loader(data, sampler, workers=2)
for batch in loader: ...                    # `FeatureBatch`
state = loader.state_dict()                 # after the last batch that was taken, whatever workers have prefetched
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from hy_core.data import ClipShape
from hy_core.errors import MissingError, UsageError
from hy_core.models import find, fingerprint
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hy_data.buckets import Assignment
from hy_data.cache.command import stores
from hy_data.cache.keys import encoders_fingerprint, latent_key, text_key
from hy_data.sampler import BatchIndices, BucketSampler
from hy_data.source import SetClip, SetSource

_PER_QUERY = 10000


@dataclass(frozen=True)
class Features:
    """A clip: `latents` [C, F, h, w], `text` [L, D_text] and `pooled` [D_pooled] of its caption, `prompt`, all float32.

    `key` names the clip in its shape: equal keys mean equal clips, in other runs too.
    """

    latents: Tensor
    text: Tensor
    pooled: Tensor
    prompt: str
    key: str
    index: int
    shape: ClipShape


@dataclass(frozen=True)
class FeatureBatch:
    """B clips of one shape: `latents` [B, C, F, h, w], `text` B tensors [L_i, D_text], `pooled` [B, D_pooled].

    The last `padded` rows are repetitions of clips, to fill the batch. `state` is the sampler's after this batch.
    """

    latents: Tensor
    text: list[Tensor]
    pooled: Tensor
    prompts: list[str]
    keys: list[str]
    indices: list[int]
    shape: ClipShape
    padded: int
    state: Mapping[str, Any]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> FeatureBatch:
        """Return the batch with its tensors on a device."""
        return replace(
            self,
            latents=self.latents.to(device, non_blocking=non_blocking),
            text=[one.to(device, non_blocking=non_blocking) for one in self.text],
            pooled=self.pooled.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> FeatureBatch:
        """Return the batch in page-locked memory, for copies to a GPU beside computing."""
        return replace(
            self,
            latents=self.latents.pin_memory(),
            text=[one.pin_memory() for one in self.text],
            pooled=self.pooled.pin_memory(),
        )


class CachedSet(Dataset[Features]):
    """The clips of a source whose latents and captions are cached for a model; finite, and indexed like the source.

    A clip's caption is one of its `captions`, drawn for (seed, epoch, index); with `caption_dropout` it is "". Clips
    whose latents aren't cached (they couldn't be decoded) are in no bucket of `assignment`, with their number among its
    reasons; with `require_all` they are a `MissingError`. `MissingError` for captions that aren't cached.
    """

    def __init__(
        self,
        source: SetSource,
        model: str = "pocket",
        *,
        captions: int = 4,
        caption_dropout: float = 0.1,
        seed: int = 0,
        dtype: str = "float16",
        require_all: bool = False,
    ) -> None:
        if not 0 <= caption_dropout <= 1 or captions < 1:
            raise UsageError(f"captions = {captions}, caption_dropout = {caption_dropout}: out of range")
        self.source, self.captions, self.dropout, self.seed, self.dtype = (
            source, captions, caption_dropout, seed, dtype,
        )  # fmt: skip
        self.epoch = 0
        spec = find(model)
        self.vae, self.encoders = fingerprint(spec.vae), encoders_fingerprint(spec.folder)
        self.latents, self.texts = stores(source.folder)
        self.assignment = self._cached(require_all)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Features:
        return self._features(index, self.epoch)

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Return the clips of a batch, in the epoch that its indices are of; what a DataLoader calls."""
        epoch = indices.epoch if isinstance(indices, BatchIndices) else self.epoch
        return [indices, *(self._features(index, epoch) for index in indices)]

    def shape(self, index: int) -> ClipShape:
        """Return the shape of a clip in pixels."""
        return self.source.shape(index)

    @property
    def fingerprint(self) -> str:
        """A hash of the clips, the model's weights and the captions."""
        return f"{self.source.fingerprint}-{self.vae[:8]}-{self.encoders[:8]}-{self.captions}"

    def _features(self, index: int, epoch: int) -> Features:
        clip = self.source[index]
        key = latent_key(clip, self.vae, self.dtype)
        rng = np.random.default_rng((self.seed, epoch, index))
        choices = clip.captions(self.captions)
        dropped, which = rng.random() < self.dropout, int(rng.integers(len(choices)))
        prompt = "" if dropped else choices[which]
        text = self.texts.get(text_key(prompt, clip.shape.frames == 1, self.encoders, self.dtype))
        latents = self.latents.get(key)["latents"].float()
        return Features(
            latents, text["states"].float(), text["pooled"].float(), prompt, key, index, clip.shape
        )

    def _cached(self, require_all: bool) -> Assignment:
        whole = self.source.bucketed
        bucket = whole.bucket.copy()
        lost: list[str] = []
        for first in range(0, len(self), _PER_QUERY):
            clips = [self.source[index] for index in range(first, min(first + _PER_QUERY, len(self)))]
            keys = [latent_key(clip, self.vae, self.dtype) for clip in clips]
            missing = set(self.latents.missing(keys))
            rows = [row for row, key in enumerate(keys) if key in missing]
            bucket[[first + row for row in rows]] = -1
            lost += [clips[row].id for row in rows]
            self._check_texts([clip for clip, key in zip(clips, keys, strict=True) if key not in missing])
        if lost and (require_all or len(lost) == len(self)):
            raise MissingError(
                f"{len(lost)} of {len(self)} clips have no cached latents ({lost[0]}, …)", _fill(self)
            )
        reasons = {**whole.reasons, **({"no cached latents": len(lost)} if lost else {})}
        return Assignment(whole.buckets, bucket, reasons)

    def _check_texts(self, clips: Sequence[SetClip]) -> None:
        keys = {}
        for clip in clips:
            for text in (*clip.captions(self.captions), ""):
                keys[text_key(text, clip.shape.frames == 1, self.encoders, self.dtype)] = text
        if missing := self.texts.missing(keys):
            raise MissingError(
                f"{len(missing)} captions are not cached ({keys[missing[0]][:40]!r}, …)", _fill(self)
            )


class Loader:
    """Batches of a `CachedSet` in the order of a sampler, one epoch an iteration; `workers` processes read ahead.

    `state_dict` is the sampler's state after the last batch that the iteration yielded; `load_state_dict` continues
    there, with any number of ranks and workers.
    """

    def __init__(
        self, data: CachedSet, sampler: BucketSampler, workers: int = 0, pin_memory: bool = False
    ) -> None:
        self.data, self.sampler = data, sampler
        self._state: Mapping[str, Any] = sampler.state_dict()
        self._loader: DataLoader[Any] = DataLoader(
            data,
            batch_sampler=sampler,
            num_workers=workers,
            collate_fn=collate,
            pin_memory=pin_memory,
            multiprocessing_context="spawn" if workers else None,
            persistent_workers=workers > 0,
        )

    def __iter__(self) -> Iterator[FeatureBatch]:
        self.sampler.load_state_dict(
            self._state
        )  # what was read ahead of an iteration that was left counts as unread
        for batch in self._loader:
            self._state = batch.state
            yield batch

    def __len__(self) -> int:
        """The number of batches of an epoch."""
        return len(self.sampler)

    def state_dict(self) -> dict[str, Any]:
        """Return the state after the last batch."""
        return dict(self._state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue after the batch that a state was taken at."""
        self.sampler.load_state_dict(state)
        self._state = dict(state)


def collate(items: Sequence[Any]) -> FeatureBatch:
    """Make a batch of what `CachedSet.__getitems__` returns, or of `Features` alone."""
    indices, rows = (items[0], items[1:]) if isinstance(items[0], list) else (None, items)
    known = indices if isinstance(indices, BatchIndices) else None
    return FeatureBatch(
        latents=torch.stack([row.latents for row in rows]),
        text=[row.text for row in rows],
        pooled=torch.stack([row.pooled for row in rows]),
        prompts=[row.prompt for row in rows],
        keys=[row.key for row in rows],
        indices=[row.index for row in rows],
        shape=rows[0].shape,
        padded=known.padded if known is not None else 0,
        state=known.state if known is not None else {},
    )


def _fill(data: CachedSet) -> str:
    name = data.source.name
    return f"hy data cache {data.source.folder} --set {name} --captions {data.captions} fills the cache"
