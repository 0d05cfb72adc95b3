"""Features without weights: small pictures, and how they change. For models that know a small world."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class PixelFeatures:
    """Each frame as a picture of `colours` x `colours` pixels, and the change of one of `motion` x `motion`.

    The features of a frame are its colours in [-1, 1], then its brightness less the frame's before it (0 in the
    first).
    """

    colours: int = 8
    motion: int = 16

    @property
    def size(self) -> int:
        """Numbers of one frame."""
        return 3 * self.colours**2 + self.motion**2

    def prepare(self, frame: np.ndarray) -> np.ndarray:
        """One picture uint8 [H,W,3] as fp32: its colours, then its brightness."""
        picture = Image.fromarray(frame)
        small, fine = (
            np.asarray(picture.resize((side, side), Image.Resampling.BOX), np.float32) / 127.5 - 1
            for side in (self.colours, self.motion)
        )
        return np.concatenate([small.ravel(), (fine @ np.array(_LUMA, np.float32)).ravel()])

    def encode(self, prepared: Sequence[np.ndarray]) -> Tensor:
        """Features [T,size] of frames that follow one another."""
        values = torch.from_numpy(np.stack(prepared))
        colours, light = values.split([3 * self.colours**2, self.motion**2], dim=1)
        return torch.cat((colours, light.diff(dim=0, prepend=light[:1])), dim=1)
