"""The procedural world: clips of coloured shapes that move, with captions and the full truth about each."""

from __future__ import annotations

from hy_data.world.captions import Caption, caption
from hy_data.world.judge import Seen, Verdict, judge
from hy_data.world.render import render
from hy_data.world.scene import (
    BACKGROUNDS,
    COLOURS,
    MOTIONS,
    SHAPES,
    SIZES,
    Scene,
    Thing,
    Track,
    sample_scene,
)

__all__ = [
    "BACKGROUNDS",
    "COLOURS",
    "MOTIONS",
    "SHAPES",
    "SIZES",
    "Caption",
    "Scene",
    "Seen",
    "Thing",
    "Track",
    "Verdict",
    "caption",
    "judge",
    "render",
    "sample_scene",
]
