"""From pictures to the latent frames that they are given as.

The first latent frame is one frame of the video, each later one four: latent frame k > 0 stands for the frames
4k-3 to 4k. A picture at frame 0 is encoded as what it is, a clip of one frame. A picture anywhere else holds its whole
group: it is encoded as a clip that stands still, and the group behind the first is what we take.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from hy_core.condition import TilingFor
    from hy_core.vae import VAE
    from torch import Tensor


def pixels(frames: np.ndarray, vae: VAE) -> Tensor:
    """Frames uint8 [F, H, W, 3] as the VAE takes them, [1, 3, F, H, W] in -1..1."""
    weight = next(vae.parameters())
    tensor = torch.from_numpy(np.array(frames)).to(weight.device)
    return (tensor.permute(3, 0, 1, 2)[None].float() / 127.5 - 1).to(weight.dtype)


@torch.no_grad()
def moving(vae: VAE, clip: Tensor, tiles: TilingFor | None = None) -> Tensor:
    """Latents [B, C, k+1, h, w], in the model's scale, of a clip [B, 3, 4k+1, H, W] that begins the video.

    `tiles` says how a clip of so many frames is cut for the VAE (see `Condition`).
    """
    tiling = tiles(clip.shape[2]) if tiles else None
    return vae.to_model(vae.encode_inference(clip, tiling).mode()).float()


def still(vae: VAE, picture: Tensor, tiles: TilingFor | None = None) -> Tensor:
    """The latent frame [B, C, 1, h, w], in the model's scale, of a group that holds a picture [B, 3, 1, H, W]."""
    group = picture.expand(-1, -1, vae.config.time + 1, -1, -1)
    return moving(vae, group, tiles)[:, :, -1:]


def beside(picture: Tensor, channels: int, frames: int) -> Tensor:
    """A picture's latent [B, C, 1, h, w] as `channels` beside the noisy ones: [B, channels, frames, h, w].

    It stands in the first frame with nothing behind it; a channel more than it has marks where it stands.
    """
    rows, own, _, *size = picture.shape
    found = picture.new_zeros(rows, channels, frames, *size)
    found[:, :own, :1] = picture
    found[:, own:, 0] = 1
    return found
