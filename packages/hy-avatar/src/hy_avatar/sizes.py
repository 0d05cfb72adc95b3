"""Sizes of a clip in the shape of a picture, as the released model was trained with (facts 2.4)."""

from __future__ import annotations

import math

#: The short side, and the long side that says how many pixels there may be.
CLASSES = {704: 1216, 512: 768, 384: 576, 256: 384}
MULTIPLE = 64


def size_for(width: int, height: int, short: int = 704) -> tuple[int, int]:
    """Width and height in multiples of 64 for a picture: its short side `short`, fewer pixels if it is long.

    1920x1080 becomes 1216x704, 1024x1024 becomes 704x704, 768x1024 becomes 704x960.
    """
    scale = short / min(width, height)
    budget = short * CLASSES[short]
    if width * height * scale**2 > budget:
        scale = math.sqrt(budget / (width * height))
    return _fit(width * scale), _fit(height * scale)


def class_for(height: int) -> int | None:
    """The class of a model's own height: the largest that isn't larger; None for a model of small pictures."""
    return next((short for short in CLASSES if short <= height), None)


def _fit(side: float) -> int:
    return max(round(side / MULTIPLE), 1) * MULTIPLE
