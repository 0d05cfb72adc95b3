"""Pictures and clips as latent frames.

The first latent frame is one picture; each later one is `time` (4) frames of video, seen after what came before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from hy_core.vae import VAE
    from torch import Tensor


@torch.no_grad()
def still(vae: VAE, pictures: Tensor) -> Tensor:
    """The latent [B, C, 1, h, w], in the model's scale, of a later group of frames that stands still.

    `pictures` [B, 3, 1, H, W] in [-1, 1]. A picture alone is encoded as a first frame, which a later group is not: so the
    picture is encoded as a clip that doesn't move, and its second latent frame taken.
    """
    clip = pictures.repeat(1, 1, 1 + vae.config.time, 1, 1)
    return vae.to_model(vae.encode(clip).mode())[:, :, 1:]
