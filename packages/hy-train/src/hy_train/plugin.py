"""What hy-train announces: its objectives."""

from __future__ import annotations

from hy_core import hookimpl


@hookimpl
def register_objectives(register):
    register("vae", "hy_train.objectives.vae:VAEObjective")
    register("text", "hy_train.objectives.text:TextObjective")
    register("flow", "hy_train.objectives.flow:FlowObjective")
