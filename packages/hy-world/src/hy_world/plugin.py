"""What hy-world adds to hy: the procedural world, its sound and its characters as datasets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hy_core.hooks import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable


@hookimpl
def register_datasets(register: Callable[..., None]) -> None:
    """Offer the world to `hy train`."""
    register("world", "hy_world.sources.scenes:WorldSource")
    register("characters", "hy_world.sources.characters:CharacterSource")
    register("world-sound", "hy_world.sources.sounding:SoundingSource")


@hookimpl
def register_objectives(register: Callable[..., None]) -> None:
    """Offer the training of pocket's text encoders (`text`) and of its rewriter (`rewriter`)."""
    register("text", "hy_world.text.objective:TextObjective")
    register("rewriter", "hy_world.rewriting.objective:RewriterObjective")


@hookimpl
def register_recipes(register: Callable[..., None]) -> None:
    """The files in `recipes/`."""
    for path in sorted(Path(__file__).with_name("recipes").glob("*.toml")):
        register(path.stem, path)
