"""Rotary positions in three axes: each token is turned by its time, row and column.

Channels are turned in neighbouring pairs; a head's channels are shared out among the axes. Positions may be any
real number, so that any size and length works, and a reference frame may stand before the video, at time -1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

#: Cosines and sines, each [tokens, head_dim / 2], fp32.
Rope = tuple[Tensor, Tensor]


def frequencies(dim: int, theta: float = 256.0, device: torch.device | str | None = None) -> Tensor:
    """Radians per position of the `dim / 2` channel pairs of one axis: theta^(-2j / dim), fp32."""
    return 1.0 / theta ** (torch.arange(0, dim, 2, dtype=torch.float32, device=device) / dim)


def table(positions: Sequence[Tensor], dims: Sequence[int], theta: float = 256.0) -> Rope:
    """Angles of the grid spanned by one list of positions per axis, in row-major order.

    `positions[a]` is [n_a] and `dims[a]` channels turn with axis a; the tables have the product of all n_a rows.
    """
    axes = [
        torch.outer(at.float(), frequencies(dim, theta, at.device))
        for at, dim in zip(positions, dims, strict=True)
    ]
    sizes = [len(at) for at in positions]
    spread = [
        angles.view([-1 if other == axis else 1 for other in range(len(sizes))] + [angles.shape[1]]).expand(
            *sizes, -1
        )
        for axis, angles in enumerate(axes)
    ]
    angles = torch.cat(spread, dim=-1).flatten(0, -2)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, rope: Rope) -> Tensor:
    """Turn the channel pairs of x [..., tokens, heads, head_dim]; computed and returned in fp32."""
    cos, sin = (part[:, None] for part in rope)  # [tokens, 1, head_dim / 2]
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)
