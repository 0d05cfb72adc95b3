"""From noise to data along the velocity: one loop, and a rule for each sampler's steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
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
    """Called after each step: `step` counts from 1, `x` are its latents, `clean` the estimated clean latents."""

    def __call__(self, step: int, steps: int, x: Tensor, clean: Tensor) -> None:
        """x and clean are latents [B, C, F, h, w]: the noisy ones, and the estimate of the finished ones."""
        ...


class Sampler(Protocol):
    """`sampler(velocity, x, sigmas, callback, before, noise)`: from noise x to latents, float32 [B, C, F, h, w]."""

    def __call__(
        self,
        velocity: Velocity,
        x: Tensor,
        sigmas: Tensor,
        callback: Callback | None = None,
        before: Before | None = None,
        noise: Noise | None = None,
    ) -> Tensor: ...


@dataclass(frozen=True)
class Step:
    """One step from time `sigma` to time `target` (both scalars): number `index` from 0, `is_last` at the end."""

    index: int
    sigma: Tensor
    target: Tensor
    is_last: bool
    velocity: Velocity
    noise: Noise


StepRule = Callable[[Tensor, Step], tuple[Tensor, Tensor]]
"""`rule(x, step)`: the latents at the step's target, and the clean latents that the step estimates."""


def sample(
    rule: StepRule,
    velocity: Velocity,
    x: Tensor,
    sigmas: Tensor,
    callback: Callback | None = None,
    before: Before | None = None,
    noise: Noise | None = None,
) -> Tensor:
    """Go from `x` at sigmas[0] to sigmas[-1] by a step rule; returns float32 [B, C, F, h, w].

    The latents stay float32 between steps whatever the network computes in (core facts, trap 8). Without `noise`,
    rules that need some draw torch's.
    """
    x, sigmas = x.float(), sigmas.float().to(x.device)
    steps = len(sigmas) - 1
    for index in range(steps):
        sigma, target = sigmas[index], sigmas[index + 1]
        x = before(x, sigma, index) if before else x
        draw = noise or partial(torch.randn_like, x)
        x, clean = rule(x, Step(index, sigma, target, index == steps - 1, velocity, draw))
        if callback:
            callback(index + 1, steps, x, clean)
    return x


def euler(x: Tensor, step: Step) -> tuple[Tensor, Tensor]:
    """Euler's rule: x + (target - sigma) * velocity. x and both results are [B, C, F, h, w]."""
    v = step.velocity(x, step.sigma, step.index)
    x = x + (step.target - step.sigma) * v
    return x, x - step.target * v


def heun(x: Tensor, step: Step) -> tuple[Tensor, Tensor]:
    """Heun's rule: an Euler step, then again with the mean of the velocities at both its ends.

    Two calls of the network a step, one in the last, which ends at clean latents.

    x and both results are [B, C, F, h, w].
    """
    v = step.velocity(x, step.sigma, step.index)
    if not step.is_last:
        end = step.velocity(x + (step.target - step.sigma) * v, step.target, step.index)
        v = (v + end) / 2
    x = x + (step.target - step.sigma) * v
    return x, x - step.target * v


RENOISE_START = 0.85
"""The time from which on `stochastic` replaces the noise at each step."""


def stochastic(x: Tensor, step: Step) -> tuple[Tensor, Tensor]:
    """Euler's rule down to `RENOISE_START`; from there to the estimated clean latents, and back with new noise.

    The second part is multistep consistency sampling (Song et al. 2023, algorithm 1): new noise covers the errors of
    a step, which Euler's rule would carry on. Above `RENOISE_START` the noise determines the layout of the clip, which
    new noise would change (EDM, Karras et al. 2022, adds noise in a range of times too).

    x and both results are [B, C, F, h, w].
    """
    v = step.velocity(x, step.sigma, step.index)
    clean = x - step.sigma * v
    if 0 < step.target <= RENOISE_START:
        fresh = step.noise().to(x)
        return (1 - step.target) * clean + step.target * fresh, clean
    return x + (step.target - step.sigma) * v, clean


sample_euler: Sampler = partial(sample, euler)
sample_heun: Sampler = partial(sample, heun)
sample_stochastic: Sampler = partial(sample, stochastic)

SAMPLERS: dict[str, Sampler] = {
    "euler": sample_euler,
    "heun": sample_heun,
    "stochastic": sample_stochastic,
}
