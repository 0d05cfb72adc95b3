"""The parts of the causal 3D VAE. Tensors are [B, C, T, H, W]; parameter names are the checkpoints' own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORM_EPS = 1e-6


class CausalConv3d(nn.Module):
    """Convolution that sees no later frame: edges are repeated, in time only before the first frame."""

    def __init__(
        self, channels_in: int, channels_out: int, kernel: int = 3, stride: tuple[int, int, int] = (1, 1, 1)
    ):
        super().__init__()
        self.kernel = kernel
        self.conv = nn.Conv3d(channels_in, channels_out, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel > 1:
            side = self.kernel // 2
            x = F.pad(x, (side, side, side, side, self.kernel - 1, 0), mode="replicate")
        result: Tensor = self.conv(x)
        return result


class ResnetBlock(nn.Module):
    """Two normalised convolutions beside a skip (a pointwise convolution where the width changes)."""

    def __init__(self, channels_in: int, channels_out: int, groups: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels_in, eps=NORM_EPS)
        self.conv1 = CausalConv3d(channels_in, channels_out)
        self.norm2 = nn.GroupNorm(groups, channels_out, eps=NORM_EPS)
        self.conv2 = CausalConv3d(channels_out, channels_out)
        self.conv_shortcut = (
            CausalConv3d(channels_in, channels_out, 1) if channels_in != channels_out else None
        )

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv1(F.silu(self.norm1(x)))
        inner = self.conv2(F.silu(self.norm2(inner)))
        result: Tensor = inner + (x if self.conv_shortcut is None else self.conv_shortcut(x))
        return result


class FrameCausalAttention(nn.Module):
    """One attention head over all tokens, each frame seeing itself and the frames before it."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, channels, eps=NORM_EPS)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, frames, height, width = x.shape
        tokens = self.group_norm(x.flatten(2)).transpose(1, 2)  # [B, T*H*W, C], frame after frame
        q, k, v = (to(tokens).unsqueeze(1) for to in (self.to_q, self.to_k, self.to_v))
        # Frame by frame over the past: half the work of a full product, and no [N, N] mask.
        size = height * width
        seen = [
            F.scaled_dot_product_attention(q[:, :, end - size : end], k[:, :, :end], v[:, :, :end])
            for end in range(size, frames * size + 1, size)
        ]
        out = self.to_out[0](torch.cat(seen, dim=2).squeeze(1))
        result: Tensor = x + out.transpose(1, 2).reshape(batch, channels, frames, height, width)
        return result


class Downsample(nn.Module):
    """Strided causal convolution."""

    def __init__(self, channels: int, stride: tuple[int, int, int]):
        super().__init__()
        self.conv = CausalConv3d(channels, channels, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(x)
        return result


class Upsample(nn.Module):
    """Nearest-neighbour enlargement, then a causal convolution; the first frame grows in space only."""

    def __init__(self, channels: int, stride: tuple[int, int, int]):
        super().__init__()
        self.stride = stride
        self.conv = CausalConv3d(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(enlarge(x, self.stride))
        return result


def enlarge(x: Tensor, stride: tuple[int, int, int]) -> Tensor:
    """Repeat pixels and frames: T frames become 1 + (T - 1) * stride[0]."""
    time, rows, columns = stride
    batch, channels, frames, height, width = x.shape
    wide = x[:, :, :, :, None, :, None].expand(batch, channels, frames, height, rows, width, columns)
    wide = wide.reshape(batch, channels, frames, height * rows, width * columns)
    if time == 1 or frames == 1:
        return wide
    return torch.cat([wide[:, :, :1], wide[:, :, 1:].repeat_interleave(time, dim=2)], dim=2)


class DownBlock(nn.Module):
    """A stage of the encoder."""

    def __init__(
        self, channels_in: int, channels_out: int, layers: int, groups: int, stride: tuple[int, int, int]
    ):
        super().__init__()
        widths = [channels_in] + [channels_out] * layers
        self.resnets = nn.ModuleList(
            ResnetBlock(a, b, groups) for a, b in zip(widths, widths[1:], strict=False)
        )
        self.downsamplers = nn.ModuleList([Downsample(channels_out, stride)] if stride != (1, 1, 1) else [])

    def forward(self, x: Tensor) -> Tensor:
        for layer in (*self.resnets, *self.downsamplers):
            x = layer(x)
        return x


class UpBlock(nn.Module):
    """A stage of the decoder."""

    def __init__(
        self, channels_in: int, channels_out: int, layers: int, groups: int, stride: tuple[int, int, int]
    ):
        super().__init__()
        widths = [channels_in] + [channels_out] * layers
        self.resnets = nn.ModuleList(
            ResnetBlock(a, b, groups) for a, b in zip(widths, widths[1:], strict=False)
        )
        self.upsamplers = nn.ModuleList([Upsample(channels_out, stride)] if stride != (1, 1, 1) else [])

    def forward(self, x: Tensor) -> Tensor:
        for layer in (*self.resnets, *self.upsamplers):
            x = layer(x)
        return x


class MidBlock(nn.Module):
    """The stage at the lowest resolution, the only one with attention."""

    def __init__(self, channels: int, groups: int, attention: bool):
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(channels, channels, groups) for _ in range(2))
        self.attentions = nn.ModuleList([FrameCausalAttention(channels, groups)] if attention else [])

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.resnets[0], *self.attentions, self.resnets[1]):
            x = layer(x)
        return x
