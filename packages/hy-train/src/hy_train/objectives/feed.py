"""The batches of a DiT's training: from the caches of latents and of text features. Loader processes run this."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hy_core.text import TextEncoder
from hy_core.training import Recipe, TrainingBatch, seeded

from hy_train.latents import LatentCache
from hy_train.objectives.batches import BatchPlan, Rows
from hy_train.objectives.flow_config import FlowData, FlowOptions
from hy_train.texts import TextCache


@dataclass(frozen=True, eq=False)
class FlowBatch(TrainingBatch):
    """A training batch and the number of the bucket that it was drawn from."""

    bucket: int = 0


@dataclass(frozen=True)
class LoadEncoders:
    """Loads the text encoders of a model's folder; can be sent to another process."""

    folder: Path
    device: str
    dtype: torch.dtype

    def __call__(self) -> TextEncoder:
        return TextEncoder.load(self.folder, self.device, self.dtype)


class FlowFeed:
    """Makes batches of clips of one bucket. An instance can be sent to other processes: it holds no network."""

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        data: FlowData,
        options: FlowOptions,
        latents: LatentCache,
        texts: TextCache,
    ) -> None:
        self.recipe, self.folder, self.data, self.options = recipe, folder, data, options
        self.latents, self.texts = latents, texts
        self._plan: BatchPlan | None = None

    @property
    def plan(self) -> BatchPlan:
        """Which clips and captions are in which batch."""
        if self._plan is None:
            recipe, buckets = self.recipe, self.data.buckets
            self._plan = BatchPlan(
                buckets,
                [self.latents.usable(number) for number in range(len(buckets))],
                recipe.seed,
                recipe.steps,
                recipe.batch,
                self.options.caption_dropout,
                caption=self.caption,
                length=self.length,
            )
        return self._plan

    def is_picture(self, source: int) -> bool:
        """Whether the clips of a source have one frame."""
        return self.latents.shape(source).frames == 1

    def length(self, source: int, prompt: str) -> int:
        """Return the number of a caption's states."""
        return self.texts.length(prompt, self.is_picture(source))

    def caption(self, source: int, index: int, rng: np.random.Generator) -> str:
        """Draw a caption of a clip: one of its `data.captions` cached ones, or a new one if that is 0."""
        count = self.data.captions
        return (
            self.variant(source, index, int(rng.integers(count)))
            if count
            else self.latents.clip(source, index).caption(rng)
        )

    def variant(self, source: int, index: int, number: int) -> str:
        """Return one of the cached captions of a clip, which are the same in every run of a seed."""
        rng = np.random.default_rng(seeded(self.recipe.seed, 5, index, number))
        return self.latents.clip(source, index).caption(rng)

    def captions(self) -> Iterator[tuple[str, bool]]:
        """Yield the captions that batches can have, each (text, whether for a picture)."""
        for source in range(len(self.latents.sources)):
            is_picture = self.is_picture(source)
            yield "", is_picture
            for index in self.latents.usable(source):
                for number in range(self.data.captions):
                    yield self.variant(source, int(index), number), is_picture

    def batch(self, step: int, rank: int = 0, ranks: int = 1) -> FlowBatch:
        """Return the batch of a step and rank."""
        return self.make(self.plan.rows(step, rank, ranks))

    def make(self, rows: Rows) -> FlowBatch:
        """Return the batch of some clips and captions."""
        bucket, indices = rows.bucket, rows.indices
        encoded = self.texts.get(rows.prompts, self.is_picture(bucket))
        settings: Mapping[str, Any] = self.recipe.conditioning
        return FlowBatch(
            latents=self.latents.get(bucket, indices),
            shape=self.latents.shape(bucket),
            text=encoded.text,
            pooled=encoded.pooled,
            prompts=rows.prompts,
            clips=self.latents.clips(bucket, indices),
            keys=self.latents.keys(bucket, indices),
            generator=torch.Generator(),
            foreground=self.latents.foreground(bucket, indices),
            cache_folder=self.folder,
            settings=settings,
            bucket=bucket,
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_plan": None}
