"""What happens when, as Foley sees it: the visual half of Synchformer, on any device.

A segment of 16 frames (0.64 s at 25 fps) becomes 8 vectors. Attention is divided: each patch attends to its own
place in all frames, then to its own frame; the class token reads and is read by everything. B rows, S segments,
F tubes of two frames, P patches of a frame, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from hy_core.dit.layers import MLP
from hy_core.errors import UsageError
from hy_core.tables import bounded, check_fields
from torch import Tensor, nn

from hy_audio.dit.config import MAX_BLOCKS, MAX_WIDTH


@dataclass(frozen=True)
class SynchformerConfig:
    """Shape of the network; the defaults are those of the released weights (ViT-B, divided 224 16x4)."""

    width: int = bounded(768, 2, MAX_WIDTH)
    depth: int = bounded(12, 0, MAX_BLOCKS)
    heads: int = bounded(12, 1, 1024)
    mlp_width: int = bounded(3072, 1, MAX_WIDTH)
    size: int = bounded(224, 1, 4096)
    patch: int = bounded(16, 1, 4096)
    frames: int = bounded(16, 1, 4096)
    tube: int = bounded(2, 1, 4096)

    def __post_init__(self) -> None:
        check_fields(self, "Synchformer config")
        if self.width % self.heads or self.size % self.patch or self.frames % self.tube:
            raise UsageError(
                f"Synchformer config: width {self.width}, size {self.size}, {self.frames} frames can't be divided by "
                f"{self.heads} heads, patches of {self.patch} and tubes of {self.tube}"
            )


class DividedAttention(nn.Module):
    """Attention along one axis of a grid, with a class token that takes part in every line of it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, tubes: int, along_time: bool) -> Tensor:
        """x is [B, 1 + F*P, D], the class token first and then frame by frame."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each [B,H,1+F*P,d]
        first = F.scaled_dot_product_attention(q[:, :, :1], k, v)
        q, *rest = (self.lines(part[:, :, 1:], tubes, along_time) for part in (q, k, v))  # [B,H,lines,n,d]
        shared = (part[:, :, None, :1].expand(-1, -1, q.shape[2], -1, -1) for part in (k, v))
        k, v = (torch.cat(pair, dim=3) for pair in zip(shared, rest, strict=True))
        out = F.scaled_dot_product_attention(q, k, v)
        out = (out.transpose(2, 3) if along_time else out).flatten(2, 3)
        return self.proj(torch.cat((first, out), dim=2).transpose(1, 2).flatten(2))

    @staticmethod
    def lines(x: Tensor, tubes: int, along_time: bool) -> Tensor:
        """Cut [B,H,F*P,d] into frames, or into the places that all frames share."""
        x = x.unflatten(2, (tubes, -1))
        return x.transpose(2, 3) if along_time else x


class DividedBlock(nn.Module):
    """Attention in time, then in space, then an MLP."""

    def __init__(self, config: SynchformerConfig) -> None:
        super().__init__()
        width = config.width
        self.norm3 = nn.LayerNorm(width, eps=1e-6)
        self.timeattn = DividedAttention(width, config.heads)
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = DividedAttention(width, config.heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = MLP(width, config.mlp_width, nn.GELU())

    def forward(self, x: Tensor, tubes: int) -> Tensor:
        x = x + self.timeattn(self.norm3(x), tubes, along_time=True)
        x = x + self.attn(self.norm1(x), tubes, along_time=False)
        return x + self.mlp(self.norm2(x))


class FrameSummary(nn.TransformerEncoderLayer):
    """A frame's patches [*,P,D] to one vector [*,D], read off a class token of its own."""

    def __init__(self, config: SynchformerConfig) -> None:
        super().__init__(
            config.width,
            config.heads,
            config.mlp_width,
            dropout=0.0,
            activation=F.gelu,
            layer_norm_eps=1e-6,
            batch_first=True,
            norm_first=True,
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # masks don't occur
        return super().forward(torch.cat((self.cls_token.expand(len(x), -1, -1), x), dim=1))[:, 0]


class Tubes(nn.Module):
    """Cut frames into tubes of two frames and 16 x 16 pixels, and embed them: [B,F*P,D], frame by frame."""

    def __init__(self, config: SynchformerConfig) -> None:
        super().__init__()
        kernel = (config.tube, config.patch, config.patch)
        self.proj = nn.Conv3d(3, config.width, kernel, stride=kernel)

    def forward(self, frames: Tensor) -> Tensor:
        return self.proj(frames).flatten(2).transpose(1, 2)


class Synchformer(nn.Module):
    """Frames to features of what happens when. Parameter names are those of the released `vfeat_extractor`."""

    #: Frames from one segment's start to the next's.
    STEP = 8

    def __init__(self, config: SynchformerConfig) -> None:
        super().__init__()
        self.config = config
        width, places = config.width, (config.size // config.patch) ** 2
        self.patch_embed_3d = Tubes(config)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + places, width))
        self.temp_embed = nn.Parameter(torch.zeros(1, config.frames // config.tube, width))
        self.blocks = nn.ModuleList([DividedBlock(config) for _ in range(config.depth)])
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.spatial_attn_agg = FrameSummary(config)

    def forward(self, segments: Tensor) -> Tensor:
        """Features [B,F,D] of segments [B,3,frames,size,size] in [-1, 1]."""
        x = self.patch_embed_3d(segments)
        tubes = self.temp_embed.shape[1]
        place = self.pos_embed[:, 1:].repeat(1, tubes, 1)
        time = self.temp_embed.repeat_interleave(place.shape[1] // tubes, 1)
        first = (self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1)
        x = torch.cat((first, x + place + time), dim=1)
        for block in self.blocks:
            x = block(x, tubes)
        frames = self.norm(x[:, 1:]).unflatten(1, (tubes, -1))  # [B,F,P,D]
        return self.spatial_attn_agg(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])

    @torch.no_grad()
    def encode(self, frames: Tensor, batch: int = 8) -> Tensor:
        """Features [S*F,D] of a clip's frames [T,3,size,size] in [-1, 1] at 25 fps, `batch` segments at a time.

        Segments of 16 frames start every 8; what is left at the end is not seen. ValueError below 16 frames.
        """
        size = self.config.frames
        if len(frames) < size:
            raise ValueError(f"timing features need at least {size} frames, not {len(frames)}")
        segments = frames.unfold(0, size, self.STEP).movedim(-1, 2)  # [S,3,16,size,size]
        where, kind = self.norm.weight.device, self.norm.weight.dtype
        return torch.cat([self(part.to(where, kind)) for part in segments.split(batch)]).flatten(0, 1)
