"""The batch of an objective that trains a video network on latents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import Tensor

    from hy_core.data.source import Clip, ClipShape


@dataclass(frozen=True, eq=False)
class TrainingBatch:
    """B clips of one shape, as latents with encoded captions.

    `latents` [B, C, F, h, w], float32, clean, scaled as the network works on them; `shape` is that of the clips in
    pixels. `text` holds each row's valid tokens [L_i, D_text], `pooled` [B, D_pooled], `prompts` the captions (""
    where dropped). `clips` are the rows' clips, for pixels and annotations; `keys` name clips: equal keys mean equal
    clips, in later steps and runs too, so that features found out of a clip can be cached under its key in
    `cache_folder` (None: no cache on disk). `foreground` [B, 1, F, h, w] is 1 where a clip differs from its background.
    `generator` is the source of all random numbers of a step; `settings` are the recipe's `[conditioning.NAME]` tables,
    by plugin.
    """

    latents: Tensor
    shape: ClipShape
    text: Sequence[Tensor]
    pooled: Tensor
    prompts: Sequence[str]
    clips: Sequence[Clip]
    keys: Sequence[str]
    generator: torch.Generator
    foreground: Tensor | None = None
    cache_folder: Path | None = None
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """B, the number of clips."""
        return len(self.prompts)

    def video(self, rows: Sequence[int] | None = None) -> Tensor:
        """Return the pixels of the clips, or of some rows, float32 [B, 3, T, H, W] in [-1, 1], beside `latents`."""
        import torch

        chosen = range(self.rows) if rows is None else rows
        pixels = torch.stack([to_pixels(self.clips[row].video()) for row in chosen])
        return pixels.to(self.latents.device)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """Return the batch with its tensors on a device."""
        return self._mapped(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Return the batch with its tensors in memory from which a GPU copies without waiting."""
        return self._mapped(lambda tensor: tensor.pin_memory())

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> Self:
        return replace(
            self,
            latents=change(self.latents),
            text=[change(row) for row in self.text],
            pooled=change(self.pooled),
            foreground=None if self.foreground is None else change(self.foreground),
        )


def to_pixels(video: Any) -> Tensor:
    """Convert frames, uint8 array [T, H, W, 3], to float32 [3, T, H, W] in [-1, 1]."""
    import numpy as np
    import torch

    return torch.from_numpy(np.ascontiguousarray(video)).permute(3, 0, 1, 2).float() / 127.5 - 1
