"""What hy-train registers: its objectives."""

from __future__ import annotations

from collections.abc import Callable

from hy_core import hookimpl


@hookimpl
def register_objectives(register: Callable[..., None]) -> None:
    """Offer `flow` (a DiT), `finetune` (a DiT or its adapters, on own clips) and `vae`."""
    register("vae", "hy_train.objectives.vae:VAEObjective")
    register("flow", "hy_train.objectives.flow:FlowObjective")
    register("finetune", "hy_train.objectives.finetune:FinetuneObjective")
