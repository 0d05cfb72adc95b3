"""A small training batch, for checks of plugins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from hy_core.data import Clip, ClipShape
from hy_core.training import TrainingBatch

if TYPE_CHECKING:
    from hy_core.testing.tiny import Tiny


@dataclass(frozen=True)
class RandomClip(Clip):
    """A clip of random pixels, equal for equal seeds."""

    shape: ClipShape
    rate: float
    prompt: str
    seed: int

    @property
    def fps(self) -> float:
        return self.rate

    def video(self) -> np.ndarray:
        return np.random.default_rng(self.seed).integers(0, 256, (*self.shape, 3), dtype=np.uint8)

    def caption(self, rng: np.random.Generator) -> str:
        return self.prompt


def small_batch(tiny: Tiny, rows: int = 2) -> TrainingBatch:
    """Return a batch as `Conditioner.training_condition` gets it: clips of the size of `tiny.request`.

    Latents [B, C, F, h, w] and pixels are random, and equal in each call.
    """
    request, cond = tiny.request, tiny.condition(rows=rows)
    shape = ClipShape(request.frames, request.height, request.width)
    return TrainingBatch(
        latents=tiny.latents(rows=rows),
        shape=shape,
        text=list(cond.text),
        pooled=cond.pooled,
        prompts=[request.prompt] * rows,
        clips=[RandomClip(shape, request.fps, request.prompt, row) for row in range(rows)],
        keys=[f"clip-{row}" for row in range(rows)],
        generator=torch.Generator().manual_seed(6),
    )
