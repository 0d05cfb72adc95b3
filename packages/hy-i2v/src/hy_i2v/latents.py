"""Pictures and clips to latent frames.

The first latent frame is one frame of the video; latent frame k > 0 stands for the frames 4k-3 to 4k. A picture at
frame 0 is encoded as a clip of one frame. A picture anywhere else fixes its whole group: it is encoded as a clip of
5 equal frames, whose second latent frame is taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from hy_core.condition import TilingFor
    from hy_core.vae import VAE
    from torch import Tensor


def to_pixels(frames: np.ndarray, vae: VAE) -> Tensor:
    """Convert frames uint8 [F, H, W, 3] to the VAE's input [1, 3, F, H, W] in -1..1."""
    weight = next(vae.parameters())
    tensor = torch.from_numpy(np.array(frames)).to(weight.device)
    return (tensor.permute(3, 0, 1, 2)[None].float() / 127.5 - 1).to(weight.dtype)


@torch.no_grad()
def encode_clip(vae: VAE, clip: Tensor, tiling_for: TilingFor | None = None) -> Tensor:
    """Return latents [B, C, k+1, h, w], in the model's scale, of a clip [B, 3, 4k+1, H, W] at the video's start.

    `tiling_for(frames)` is how the VAE tiles a clip of that length (see `EncodingContext`).
    """
    tiling = tiling_for(clip.shape[2]) if tiling_for else None
    return vae.to_model(vae.encode_inference(clip, tiling).mode()).float()


def encode_static_group(vae: VAE, picture: Tensor, tiling_for: TilingFor | None = None) -> Tensor:
    """Return the latent frame [B, C, 1, h, w], in the model's scale, of 4 frames of a picture [B, 3, 1, H, W]."""
    group = picture.expand(-1, -1, vae.config.time + 1, -1, -1)
    return encode_clip(vae, group, tiling_for)[:, :, -1:]


def to_channels(picture: Tensor, channels: int, frames: int) -> Tensor:
    """Return a picture's latent [B, C, 1, h, w] as further input channels [B, channels, frames, h, w].

    It is in the first frame, zeros are in the others; channels beyond C are 1 in the first frame.
    """
    rows, own, _, *size = picture.shape
    found = picture.new_zeros(rows, channels, frames, *size)
    found[:, :own, :1] = picture
    found[:, own:, 0] = 1
    return found
