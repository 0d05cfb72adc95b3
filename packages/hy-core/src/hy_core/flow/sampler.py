"""From noise to data along the velocity: plain functions that a plugin can stand beside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor, int], Tensor]
"""`velocity(x, sigma, step)`: x [B, C, F, h, w] and the result float32, sigma a scalar, step from 0."""

Before = Callable[[Tensor, Tensor, int], Tensor]
"""`before(x, sigma, step)`: the latents that the step starts from."""

Noise = Callable[[], Tensor]
"""`noise()`: noise like the latents, another at each call; a clip's depends on its seed alone."""


class Callback(Protocol):
    """Called after each step: `step` counts from 1, `x` is where it ended, `clean` the data it points to."""

    def __call__(self, step: int, steps: int, x: Tensor, clean: Tensor) -> None: ...


def sample_euler(
    velocity: Velocity,
    x: Tensor,
    sigmas: Tensor,
    callback: Callback | None = None,
    before: Before | None = None,
    noise: Noise | None = None,
) -> Tensor:
    """Walk from `x` at sigmas[0] to sigmas[-1] by Euler's rule, x + (next - sigma) * velocity.

    The latents stay float32 between steps whatever the network computes in (core facts, trap 8). No noise is drawn.
    """
    x, sigmas = x.float(), sigmas.float().to(x.device)
    steps = len(sigmas) - 1
    for step in range(steps):
        sigma, target = sigmas[step], sigmas[step + 1]
        x = before(x, sigma, step) if before else x
        v = velocity(x, sigma, step)
        x = x + (target - sigma) * v
        if callback:
            callback(step + 1, steps, x, x - target * v)
    return x


def sample_heun(
    velocity: Velocity,
    x: Tensor,
    sigmas: Tensor,
    callback: Callback | None = None,
    before: Before | None = None,
    noise: Noise | None = None,
) -> Tensor:
    """Walk by Heun's rule: an Euler step, then again with the mean of the velocities at both its ends.

    Two calls a step, one in the last: at time 0 there is nothing left to learn from the network.
    """
    x, sigmas = x.float(), sigmas.float().to(x.device)
    steps = len(sigmas) - 1
    for step in range(steps):
        sigma, target = sigmas[step], sigmas[step + 1]
        x = before(x, sigma, step) if before else x
        v = velocity(x, sigma, step)
        if step < steps - 1:
            v = (v + velocity(x + (target - sigma) * v, target, step)) / 2
        x = x + (target - sigma) * v
        if callback:
            callback(step + 1, steps, x, x - target * v)
    return x


LED = 0.85
"""The time down to which `sample_stochastic` keeps the noise that a clip began with."""


def sample_stochastic(
    velocity: Velocity,
    x: Tensor,
    sigmas: Tensor,
    callback: Callback | None = None,
    before: Before | None = None,
    noise: Noise | None = None,
) -> Tensor:
    """Walk by Euler's rule down to `LED`; then go to the data that each step points to, and back with other noise.

    The second part is multistep consistency sampling (Song et al. 2023, algorithm 1): what a step got wrong is drowned
    in new noise, where Euler's rule carries it on. Before, what is where is decided from the noise alone, and each new
    one would decide it anew (EDM, Karras et al. 2022, adds noise in a range of times too). `noise` not given: torch's.
    """
    x, sigmas = x.float(), sigmas.float().to(x.device)
    steps = len(sigmas) - 1
    for step in range(steps):
        sigma, target = sigmas[step], sigmas[step + 1]
        x = before(x, sigma, step) if before else x
        v = velocity(x, sigma, step)
        clean = x - sigma * v
        if 0 < target <= LED:
            fresh = (noise() if noise else torch.randn_like(x)).to(x)
            x = (1 - target) * clean + target * fresh
        else:
            x = x + (target - sigma) * v
        if callback:
            callback(step + 1, steps, x, clean)
    return x


SAMPLERS = {"euler": sample_euler, "heun": sample_heun, "stochastic": sample_stochastic}
