"""The reference picture: cropped to the clip's shape, and encoded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from hy_core.vae import VAE
    from PIL import Image


def fit(picture: Image.Image, width: int, height: int) -> Image.Image:
    """Scale a picture to fill a size and crop its middle."""
    from PIL import Image, ImageOps

    return ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)


def pixels(picture: Image.Image, width: int, height: int) -> Tensor:
    """Return a picture as float32 [1, 3, 1, H, W] in -1..1."""
    frame = np.asarray(fit(picture.convert("RGB"), width, height), np.float32)
    return torch.from_numpy(frame / 127.5 - 1).permute(2, 0, 1)[None, :, None]


@torch.no_grad()
def latents(vae: VAE, pixels: Tensor) -> Tensor:
    """Return the mean latents, in the model's scale, of videos [N, 3, T, H, W] in -1..1: float32 [N, C, F, h, w].

    A picture's latent equals each frame's of a static video, because a causal VAE pads with the first frame. The
    released code encodes that video and draws a sample.
    """
    return vae.to_model(vae.encode_inference(pixels.to(next(vae.parameters()))).mode()).float()
