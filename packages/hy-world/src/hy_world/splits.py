"""Which combinations of attributes a model may see in training, and which are kept for the test."""

from __future__ import annotations

import zlib
from functools import cache

from hy_core.errors import UsageError

from hy_world.attributes import COLOURS, MOTIONS, SHAPES

SPLITS = ("train", "heldout", "all")
_ONE_IN = 10


def possible(shape: str, motion: str) -> bool:
    """Say whether the world has this pair: a disc of one colour that spins looks like one that doesn't."""
    return not (shape == "circle" and motion == "spin")


def is_heldout(colour: str, shape: str, motion: str, background: str) -> bool:
    """Say whether a combination is kept for the test: one in ten, by a hash, the same everywhere."""
    return zlib.crc32(f"{colour} {shape} {motion} {background}".encode()) % _ONE_IN == 0


@cache
def combinations(split: str, background: str, still: bool = False) -> tuple[tuple[str, str, str], ...]:
    """Return the (colour, shape, motion) of a split before a background; only still ones for pictures."""
    if split not in SPLITS:
        raise UsageError(f"no split {split!r}", f"one of {', '.join(SPLITS)}")
    return tuple(
        (colour, shape, motion)
        for colour in COLOURS
        for shape in SHAPES
        for motion in (("still",) if still else MOTIONS)
        if possible(shape, motion)
        and (split == "all" or is_heldout(colour, shape, motion, background) == (split == "heldout"))
    )
