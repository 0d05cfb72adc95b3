"""The reference picture: cut to the clip's shape, and as latents of a video that stands still."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from hy_avatar.released import WINDOWS

if TYPE_CHECKING:
    from hy_core.vae import VAE
    from PIL import Image


def fit(picture: Image.Image, width: int, height: int) -> Image.Image:
    """The picture scaled to fill the size, and its middle cut out."""
    from PIL import Image, ImageOps

    return ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)


def pixels(picture: Image.Image, width: int, height: int) -> Tensor:
    """The picture in -1..1 [1, 3, 1, H, W]."""
    frame = np.asarray(fit(picture.convert("RGB"), width, height), np.float32)
    return torch.from_numpy(frame / 127.5 - 1).permute(2, 0, 1)[None, :, None]


@torch.no_grad()
def still(vae: VAE, shown: Tensor, frames: int) -> Tensor:
    """Latents of a video in which the picture stands still, in the model's scale: [1, C, F, h, w].

    As long as one window of the network at most; a longer video holds the last of them (`network.lasting`). The
    released code encodes as many repetitions of the picture and draws a sample; this is the distribution's mean.
    """
    weight = next(vae.parameters())
    length = 4 * (min(frames, WINDOWS.length) - 1) + 1
    video = shown.to(weight).expand(-1, -1, length, -1, -1)
    return vae.to_model(vae.encode(video).mode()).float()
