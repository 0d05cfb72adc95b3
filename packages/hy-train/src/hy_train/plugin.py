"""What hy-train announces: its objectives and recipes."""

from __future__ import annotations

from pathlib import Path

from hy_core import hookimpl


@hookimpl
def register_objectives(register):
    register("vae", "hy_train.objectives.vae:VAEObjective")
    register("text", "hy_train.objectives.text:TextObjective")
    register("flow", "hy_train.objectives.flow:FlowObjective")


@hookimpl
def register_recipes(register):
    for path in sorted(Path(__file__).with_name("recipes").glob("*.toml")):
        register(path.stem, path)
