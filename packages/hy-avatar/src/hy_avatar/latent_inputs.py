"""Latents of pictures as a network input: the reference picture and the skeleton video.

B rows, C channels, F latent frames, S patches of a frame, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from hy_core.dit.layers import Linear, PatchEmbedding
from hy_core.dit.ports import add_to_video
from torch import Tensor, nn

from hy_avatar.config import AvatarConfig


class LatentInputs(nn.Module):
    """Embeds the latents `reference` [B, C, R, h, w] and `pose` [B, C, F, h, w] and adds them to the video's tokens.

    The last frame of a reference of R < F frames is repeated. `pose_strength` is a factor on the pose's change,
    `pose_mask` [1 or B, F, S, 1] limits it.
    """

    def __init__(self, config: AvatarConfig, channels: int, width: int, base: PatchEmbedding) -> None:
        super().__init__()
        depth, rows, columns = base.proj.kernel_size
        patch = depth, rows, columns
        # In a tuple: the network's embedding must not become a submodule of this one.
        self.base = (base,) if config.pose == "paper" else ()
        self.ref_in = PatchEmbedding(channels, width, patch) if config.reference != "none" else None
        self.before_proj = Linear(width, width) if config.reference == "add" else None
        self.pose_in = PatchEmbedding(channels, width, patch) if config.pose == "guided" else None
        last: list[Any] = [embedding.proj for embedding in (self.pose_in,) if embedding is not None]
        if self.before_proj is not None:
            last.append(self.before_proj)
        elif self.ref_in is not None:
            last.append(self.ref_in.proj)
        for layer in last:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, inputs: Mapping[str, Any]) -> Tensor:
        if self.ref_in is not None and "reference" in inputs:
            embedded = self.ref_in(extend_last_frame(inputs["reference"].to(x.device), inputs["frames"]))
            change = embedded if self.before_proj is None else self.before_proj(embedded)
            x = self.add(x, change, inputs["frames"])
        if "pose" in inputs and (self.base or self.pose_in is not None):
            pose = inputs["pose"].to(x.device)
            change = self.embed_as_video(pose) if self.pose_in is None else self.pose_in(pose)
            change = change * inputs.get("pose_strength", 1.0)
            x = self.add(x, change, inputs["frames"], inputs.get("pose_mask"))
        return x

    def embed_as_video(self, latents: Tensor) -> Tensor:
        """Embed latents [B, C, F, h, w] with the network's own embedding, which is linear, without its bias."""
        base = next(iter(self.base))
        further = base.proj.in_channels - latents.shape[1]
        latents = F.pad(latents, (0, 0, 0, 0, 0, 0, 0, further))
        return base(latents) if base.proj.bias is None else base(latents) - base.proj.bias

    @staticmethod
    def add(x: Tensor, change: Tensor, frames: int, mask: Tensor | None = None) -> Tensor:
        """Add a change [B, F or 1, S, D] to the video's frames in tokens x, where `mask` is open."""
        change = change.expand(-1, frames, -1, -1)
        return add_to_video(x, change, change.new_ones(1, frames, 1, 1) if mask is None else mask)


def token_mask(mask: Tensor, frames: int, size: tuple[int, int], patch: tuple[int, int] = (2, 2)) -> Tensor:
    """Return masks [B, 1, F or 1, H, W] on the grid of tokens: [B, F, S, 1], for latents of `size` (height, width).

    By nearest neighbour, as in the released network, which can lose a small face; `masks.to_tokens` doesn't.
    """
    grid = (size[0] // patch[0], size[1] // patch[1])
    mask = mask.float().expand(-1, -1, frames, -1, -1)
    small = F.interpolate(mask, (frames, *grid), mode="nearest")
    return small[:, 0].flatten(2).unsqueeze(-1)


def extend_last_frame(latents: Tensor, frames: int) -> Tensor:
    """Return latents [B, C, R, h, w] cut to `frames` frames, or with their last frame repeated."""
    last = latents[:, :, -1:].expand(-1, -1, max(frames - latents.shape[2], 0), -1, -1)
    return torch.cat((latents[:, :, :frames], last), 2)
