"""A batch of training in small, for checks of plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from hy_core.testing.tiny import Tiny


class SmallBatch(dict[str, Any]):
    """What `training_condition` gets, as keys and as attributes; `video()` is [B, 3, T, H, W] in -1 to 1."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def video(self) -> Tensor:
        """The pixels of the clips. Returns float32 [B, 3, T, H, W] in [-1, 1]."""
        pixels: Tensor = self["pixels"]()
        return pixels


def small_batch(tiny: Tiny, rows: int = 2) -> SmallBatch:
    """Clips of the size of `tiny.request` with random latents and pixels, always equal."""
    request, cond = tiny.request, tiny.condition(rows=rows)
    shape = rows, 3, request.frames, request.height, request.width
    pixels = torch.rand(shape, generator=torch.Generator().manual_seed(5)) * 2 - 1
    return SmallBatch(
        latents=tiny.latents(rows=rows),
        shape=shape,
        text=list(cond.text),
        pooled=cond.pooled,
        prompts=[request.prompt] * rows,
        pixels=lambda: pixels,
        truth=lambda row: {},
        keys=[f"clip-{row}" for row in range(rows)],
        generator=torch.Generator().manual_seed(6),
        settings={},
    )
