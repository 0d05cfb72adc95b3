"""From noise to latents along the guided velocity."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hy_core.condition import Condition
from hy_core.errors import UsageError
from hy_core.flow.guidance import Branch, Guided
from hy_core.flow.sampler import SAMPLERS, Sampler
from hy_core.flow.schedule import sigmas_for
from hy_core.pipeline.checks import finite, not_a_number
from hy_core.request import SEED_END, Request

if TYPE_CHECKING:
    from hy_core.conditioner import Conditioner
    from hy_core.flow.policy import SamplingPolicy
    from hy_core.models import Model

SMALL = 4096
"""Video tokens up to which guidance branches share a batch: so few leave a device idle otherwise."""
SEED_STRIDE = 0x9E3779B97F4A7C15
"""Between the seeds of a clip's segments: so large that clips of neighbouring seeds share no noise."""

StepDone = Callable[[int, int, Tensor], None]
"""`done(step from 1, steps, clean)`: called after a step; `clean` are the estimated clean latents."""


def sample(
    model: Model,
    requests: Sequence[Request],
    conditioners: Sequence[Conditioner],
    conds: Sequence[Condition],
    policy: SamplingPolicy,
    samplers: Mapping[str, Sampler],
    done: StepDone,
) -> Tensor:
    """Latents [rows, C, F, h, w], float32, of the clips of `requests`, which differ in prompts and seeds only.

    `conds` are the positive and, if there is one, the negative condition of all rows; `samplers` those of plugins.
    UsageError for an unknown sampler; HyError for NaN, with the step and the likely cause.
    """
    first, restriction = requests[0], policy.restriction
    if restriction is not None:
        conds = [restriction.doubled(one) for one in conds]
    cond, base = conds[0], conds[-1]
    branches = [] if cond is base else [Branch(cond, policy.scale)]
    for conditioner in conditioners:
        branches += conditioner.branches(first, cond)
    small = cond.frames * cond.size[0] * cond.size[1] // 4 <= SMALL
    guided = Guided(
        model.dit,
        base,
        branches,
        policy.steps,
        small,
        policy.windows,
        policy.step_cache,
        first.attention,
    )
    samplers = {**SAMPLERS, **samplers}
    if policy.sampler not in samplers:
        raise UsageError(f"--sampler {policy.sampler}: unknown", f"use {', '.join(samplers)}")

    def before(x: Tensor, sigma: Tensor, step: int) -> Tensor:
        for conditioner in conditioners:
            x = conditioner.before_step(x, float(sigma), cond)
        x = cond.with_fixed_frames(x)
        return x if restriction is None else restriction.combined(x)

    def after(step: int, steps: int, x: Tensor, clean: Tensor) -> None:
        if not finite(x):
            raise not_a_number(model.dit, f"step {step} of {steps}")
        done(step, steps, clean)

    generators = [torch.Generator().manual_seed(request.seed) for request in requests]

    def draw() -> Tensor:
        x = torch.cat([noise(*one, model) for one in zip(requests, generators, strict=True)])
        return (x if restriction is None else torch.cat([x, x])).to(model.device)

    x = draw()
    draw()  # consume draw 1, which is reserved for plugins that mix it into the start (`start_noise`)
    sigmas = sigmas_for(policy.schedule, policy.steps, policy.shift)
    x = samplers[policy.sampler](guided, x, sigmas, after, before, draw)
    return (x if restriction is None else restriction.combined(x))[: len(requests)]


def noise(request: Request, generator: torch.Generator, model: Model) -> Tensor:
    """The next noise of a request's own generator, on the CPU: float32 [1, C, F, h, w] like its latents.

    So it is the same on any device and beside any other clip. The official code draws float16 on the GPU: the same
    seed gives other noise there (core facts, trap 7).
    """
    shape = model.vae.config.latent_size(request.frames, request.height, request.width)
    return torch.randn(1, model.vae.config.latent_channels, *shape, generator=generator)


def segment_request(request: Request, number: int) -> Request:
    """The request of segment `number` (from 0) of a clip: the same with a seed of its own."""
    return replace(request, seed=(request.seed + number * SEED_STRIDE) % SEED_END) if number else request
