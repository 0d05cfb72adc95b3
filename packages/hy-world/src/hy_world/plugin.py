"""What hy-world adds to hy: the procedural world, its sound and its characters as datasets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hy_core.hooks import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable


@hookimpl
def register_datasets(register: Callable[..., None]) -> None:
    """Offer the world to `hy train`."""
    register("world", "hy_world.dataset:WorldDataset")
    register("characters", "hy_world.characters_dataset:CharacterDataset")
    register("world-sound", "hy_world.sounding:SoundingWorld")
