"""Rotary positions in three axes: each token is turned by its time, row and column.

Channels are turned in neighbouring pairs; a head's channels are shared out among the axes. Positions are
any real numbers, so that any size and length works and a reference frame may stand at time -1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def frequencies(dim: int, theta: float = 256.0, device: torch.device | str | None = None) -> Tensor:
    """Radians per position of one axis' `dim / 2` channel pairs: theta^(-2j / dim), fp32.

    Returns float32 [dim / 2].
    """
    return 1.0 / theta ** (torch.arange(0, dim, 2, dtype=torch.float32, device=device) / dim)


def riflex(turns: Tensor, frames: int) -> Tensor:
    """Frequencies of the time axis [dim / 2] for `frames` latent frames, more than the training had.

    One of them, chosen by the length, becomes so slow that it doesn't come full circle within the clip
    (RIFLEx; the constants are the official image-to-video code's, which does so above 192 frames of video).
    """
    index = min(max(2 + frames // 25, 4), 8, len(turns)) - 1
    slowed = turns.clone()
    slowed[index] = 0.9 * 2 * math.pi / frames
    return slowed


def table(
    positions: Sequence[Tensor], dims: Sequence[int], theta: float = 256.0, long: int | None = None
) -> Tensor:
    """Turns of the grid spanned by one list of positions per axis, in row-major order.

    `positions[a]` is [n_a] and `dims[a]` channels turn with axis a. `long` is the number of latent frames of
    a clip that `riflex` is for; the first axis is the time then. Returns complex numbers of size 1,
    [product of n_a, sum(dims) / 2].
    """
    sizes = [len(at) for at in positions]
    angles = []
    for axis, (at, dim) in enumerate(zip(positions, dims, strict=True)):
        shape = [1] * len(sizes) + [dim // 2]
        shape[axis] = sizes[axis]
        speeds = frequencies(dim, theta, at.device)
        speeds = riflex(speeds, long) if long and axis == 0 else speeds
        turns = torch.outer(at.float(), speeds)
        angles.append(turns.view(shape).expand(*sizes, -1))
    angle = torch.cat(angles, dim=-1).flatten(0, -2)
    return torch.complex(angle.cos(), angle.sin())


def rotate(x: Tensor, turns: Tensor) -> Tensor:
    """Turn the channel pairs of x [..., tokens, heads, head_dim] by `turns` of `table`; fp32.

    A pair is one complex number and turning it one product, which is the fastest way on a CPU.
    """
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turns[:, None]).flatten(-2)
