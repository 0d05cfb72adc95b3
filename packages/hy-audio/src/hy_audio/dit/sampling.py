"""From noise to audio latents: the core's schedule, guidance and sampler around an audio network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from hy_core.flow.guidance import combine
from hy_core.flow.sampler import SAMPLERS, Callback
from hy_core.flow.schedule import shifted_sigmas
from torch import Tensor

Network = Callable[[Tensor, Tensor, Any], Tensor]
"""`network(latents [B,...], time [B], prepared)` gives the velocity, of the latents' shape."""


@torch.no_grad()
def sample_audio(
    network: Network,
    noise: Tensor,
    positive: Any,
    negative: Any = None,
    *,
    steps: int = 50,
    shift: float = 1.0,
    cfg: float = 4.5,
    sampler: str = "euler",
    callback: Callback | None = None,
) -> Tensor:
    """Latents, float32, of the shape of `noise` [B,...].

    `positive` and `negative` are what the network's own `prepare` returned for the conditions asked for and for
    none; without `negative`, or at cfg 1 or less, guidance is off and a step costs one pass. The defaults are
    those of the released Foley (50 steps, shift 1, cfg 4.5).
    """
    guided = negative is not None and cfg > 1
    rows = noise.shape[0]

    def velocity(x: Tensor, sigma: Tensor, step: int) -> Tensor:
        time = sigma.to(x.device).expand(rows)
        wanted = network(x, time, positive).float()
        if not guided:
            return wanted
        return combine(network(x, time, negative).float(), [(cfg, wanted)])

    return SAMPLERS[sampler](velocity, noise, shifted_sigmas(steps, shift), callback)
