"""The reference picture: cut to the clip's shape, and as latents of a video that stands still."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

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
def latents(vae: VAE, pixels: Tensor) -> Tensor:
    """The distribution's mean, in the model's scale, of videos in -1..1 [N, 3, T, H, W]: float32 [N, C, F, h, w].

    Of a picture it is that of each frame of a video in which the picture stands still: a causal VAE repeats the first
    frame before the clip. The released code encodes as many repetitions as it wants frames, and draws a sample.
    """
    return vae.to_model(vae.encode_inference(pixels.to(next(vae.parameters()))).mode()).float()
