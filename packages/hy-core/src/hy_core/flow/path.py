"""The straight path between data and noise: time 0 is data, time 1 is noise, velocity points to the noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def start_noise(shape: Sequence[int], seed: int, draw: int = 0) -> Tensor:
    """Noise to start from, [1, *shape] float32: the `draw`-th of a seed (0 is the first), drawn on the CPU.

    So it is the same on any device and beside any other clip.
    """
    generator = torch.Generator().manual_seed(seed)
    for _ in range(draw):
        torch.randn(1, *shape, generator=generator)
    return torch.randn(1, *shape, generator=generator)


def interpolate(data: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """The point at `time` [B], or [B, F], on the path of latents [B, C, F, h, w]: (1 - t) * data + t * noise.

    The paper writes the same path with its time running the other way, t * data + (1 - t) * noise, and the
    velocity data - noise: that is this one under t -> 1 - t. The released weights know only this direction,
    so there is no switch (core facts, trap 1).
    """
    time = spread(time, data)
    return (1 - time) * data + time * noise


def velocity(data: Tensor, noise: Tensor) -> Tensor:
    """What the network learns to predict: the change of the point per unit of time, noise - data.

    All have the same shape.
    """
    return noise - data


def clean(point: Tensor, velocity: Tensor, time: Tensor) -> Tensor:
    """The data that a velocity at `time` (as in `interpolate`, or a scalar) points back to."""
    return point - spread(time, point) * velocity


def spread(time: Tensor, latents: Tensor) -> Tensor:
    """Times of rows [B], or of rows and frames [B, F], shaped to multiply latents [B, C, F, h, w]."""
    if time.ndim == 2:
        return time[:, None, :, None, None].to(latents.device)
    return time.reshape(-1, *(1,) * (latents.ndim - 1)).to(latents.device)
