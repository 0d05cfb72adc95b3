"""A small training batch, for checks of plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from hy_core.testing.tiny import Tiny


def small_batch(tiny: Tiny, rows: int = 2) -> dict[str, Any]:
    """Return a batch as `Conditioner.training_condition` gets it: clips of the size of `tiny.request`.

    `latents` [B, C, F, h, w] and `pixels()` [B, 3, T, H, W] in -1..1 are random, and equal in each call.
    """
    request, cond = tiny.request, tiny.condition(rows=rows)
    shape = rows, 3, request.frames, request.height, request.width
    pixels = torch.rand(shape, generator=torch.Generator().manual_seed(5)) * 2 - 1
    return {
        "latents": tiny.latents(rows=rows),
        "shape": shape,
        "text": list(cond.text),
        "pooled": cond.pooled,
        "prompts": [request.prompt] * rows,
        "pixels": lambda: pixels,
        "truth": lambda row: {},
        "keys": [f"clip-{row}" for row in range(rows)],
        "generator": torch.Generator().manual_seed(6),
        "settings": {},
    }
