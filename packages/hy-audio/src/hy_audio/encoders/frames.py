"""Frames at an encoder's size and scale.

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
        """uint8 pictures [T,H,W,3] to fp32 [T,3,size,size]; those that `fit_picture` returned stay as they are."""
        ready = np.stack([self.fit_picture(frame) for frame in frames])
        scaled = torch.from_numpy(ready).permute(0, 3, 1, 2).float() / 255
        mean, std = (torch.tensor(value)[:, None, None] for value in (self.mean, self.std))
        return (scaled - mean) / std

    def fit_picture(self, frame: np.ndarray) -> np.ndarray:
        """One picture uint8 [H,W,3] as uint8 [size,size,3]: what is worth keeping of it until it is encoded."""
        picture = Image.fromarray(frame)
        if self.fit == "square":
            return np.asarray(picture.resize((self.size, self.size), self.filter))
        width, height = picture.size
        short = min(width, height)
        sides = (self.size * width // short, self.size * height // short)
        left, top = (round((side - self.size) / 2) for side in sides)
        box = (left, top, left + self.size, top + self.size)
        return np.asarray(picture.resize(sides, self.filter).crop(box))


#: Synchformer's input: 25 fps, the middle of the picture.
SYNCHFORMER = Preparation(224, "crop", Image.Resampling.BICUBIC)
