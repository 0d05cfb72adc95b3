"""Which times to stop at on the way from noise to data, and which times to train at."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hy_core.errors import UsageError

FEW_STEPS, MANY_STEPS = 20, 50
FEW_SHIFT, MANY_SHIFT = 17.0, 7.0


def shift_times(times: Tensor, shift: float) -> Tensor:
    """Move times towards noise: s*t / (1 + (s-1)*t). Shift 1 changes nothing; 0 and 1 stay in place."""
    return shift * times / (1 + (shift - 1) * times)


def shifted_sigmas(steps: int, shift: float) -> Tensor:
    """Times [steps + 1] from 1 (noise) to 0 (data), float32: even steps, then shifted (core facts 4.1)."""
    sigmas = shift_times(torch.linspace(1.0, 0.0, steps + 1), shift)
    sigmas[0] = 1.0  # a fractional shift can miss it by rounding
    return sigmas


def adaptive_shift(steps: int) -> float:
    """The shift for a number of steps: 17 up to 20 steps, 7 from 50 on, and geometrically in between.

    The published recommendations are 7 at 50 steps and 17 below 20. Each step from 20 to 50 multiplies the
    shift by the same factor, so that it falls steadily and meets both ends: 10.9 at 35 steps.
    """
    part = min(max((steps - FEW_STEPS) / (MANY_STEPS - FEW_STEPS), 0.0), 1.0)
    out: float = FEW_SHIFT * (MANY_SHIFT / FEW_SHIFT) ** part
    return out


def linear_quadratic_sigmas(steps: int, emulate: int = 1000) -> Tensor:
    """Times [steps + 1] from 1 to 0, float32: the linear-quadratic schedule of Movie Gen, section 3.4.2.

    The first half takes steps of 1/`emulate`, those of a linear schedule of that many; the second half grows
    quadratically to the end, its slope continuing that of the first.
    """
    if steps >= emulate:
        raise UsageError(
            f"the linear-quadratic schedule takes fewer than {emulate} steps, not {steps}",
            "use --schedule shifted",
        )
    linear = steps // 2
    index = torch.arange(steps + 1, dtype=torch.float64)
    bend = (index - linear).clamp(min=0) / (steps - linear)
    progress = index / emulate + (1 - steps / emulate) * bend**2
    return (1 - progress).float().clamp(0, 1)


def sigmas_for(schedule: str, steps: int, shift: float | None) -> Tensor:
    """The times of a request: "shifted" (None: the adaptive shift), or "linear-quadratic" without a shift."""
    if schedule == "linear-quadratic":
        return linear_quadratic_sigmas(steps)
    if schedule == "shifted":
        return shifted_sigmas(steps, adaptive_shift(steps) if shift is None else shift)
    raise UsageError(f"--schedule {schedule}: unknown", "use shifted or linear-quadratic")


def sample_times(
    count: int,
    kind: str = "logit-normal",
    shift: float = 1.0,
    mean: float = 0.0,
    std: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw training times [count] in [1e-5, 1 - 1e-5], float32 on the generator's device.

    `kind`: "logit-normal" (the sigmoid of a normal with `mean` and `std`), "uniform", "mode" (the
    heavy-tailed density of Stable Diffusion 3 with scale 1.29), or "mix" (logit-normal with probability 0.7,
    else uniform). `shift` moves them towards noise as in sampling.
    """
    device = None if generator is None else generator.device
    uniform = torch.rand(count, generator=generator, device=device)
    if kind == "uniform":
        times = uniform
    elif kind == "mode":
        times = 1 - uniform - 1.29 * (torch.cos(math.pi / 2 * uniform) ** 2 - 1 + uniform)
    elif kind in ("logit-normal", "mix"):
        times = torch.sigmoid(mean + std * torch.randn(count, generator=generator, device=device))
        if kind == "mix":
            times = torch.where(torch.rand(count, generator=generator, device=device) < 0.7, times, uniform)
    else:
        raise UsageError(f"unknown time sampler {kind!r}", "use logit-normal, uniform, mode or mix")
    return shift_times(times, shift).clamp(1e-5, 1 - 1e-5)
