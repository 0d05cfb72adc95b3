"""Frames at an encoder's rate and size.

Pictures are uint8 [T,H,W,3]; tensors for networks are fp32 [T,3,h,w].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

HALF = (0.5, 0.5, 0.5)
#: Of CLIP's training pictures.
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Preparation:
    """How pictures become an encoder's input: its side in pixels, what is done to other shapes, and the scale.

    `fit` "square" squeezes the whole picture into the square; "crop" scales the short side and takes the middle.
    """

    size: int
    fit: Literal["square", "crop"]
    filter: Image.Resampling
    mean: tuple[float, float, float] = HALF
    std: tuple[float, float, float] = HALF

    def __call__(self, frames: np.ndarray | Sequence[np.ndarray]) -> Tensor:
        """uint8 pictures [T,H,W,3] to fp32 [T,3,size,size]."""
        ready = np.stack([np.asarray(self._fitted(Image.fromarray(frame))) for frame in frames])
        scaled = torch.from_numpy(ready).permute(0, 3, 1, 2).float() / 255
        mean, std = (torch.tensor(value)[:, None, None] for value in (self.mean, self.std))
        return (scaled - mean) / std

    def _fitted(self, picture: Image.Image) -> Image.Image:
        if self.fit == "square":
            return picture.resize((self.size, self.size), self.filter)
        width, height = picture.size
        short = min(width, height)
        sides = (self.size * width // short, self.size * height // short)
        left, top = ((side - self.size) / 2 for side in sides)
        corner = (round(left), round(top))
        return picture.resize(sides, self.filter).crop(
            (*corner, corner[0] + self.size, corner[1] + self.size)
        )


#: Synchformer's input: 25 fps, the middle of the picture.
SYNCHFORMER = Preparation(224, "crop", Image.Resampling.BICUBIC)


def at_rate(times: Sequence[float], rate: float, duration: float | None = None) -> list[int]:
    """Which frame is seen at 0, 1 / rate, 2 / rate...: indices into frames shown from `times` [T] on (seconds).

    The list ends with `duration`, or with the last frame's time. Works for any frame rate, even a varying one;
    a frame is the latest shown by then, the first one from the start on.
    """
    if not len(times):
        return []
    starts = np.asarray(times, dtype=np.float64)
    if duration is None:
        count = int(np.floor((starts[-1] - starts[0]) * rate + 1e-6)) + 1
    else:
        count = max(1, round(duration * rate))
    wanted = starts[0] + np.arange(count) / rate
    found = np.searchsorted(starts, wanted + 1e-6, side="right") - 1
    return found.clip(0, len(starts) - 1).tolist()
