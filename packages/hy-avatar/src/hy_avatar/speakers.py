"""Several speakers: the choice of each one's face, and disjoint masks.

Faces are boxes [left, top, right, bottom] in parts of the picture, 0 to 1, from left to right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from hy_core.errors import UsageError
from torch import Tensor

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Choice:
    """A chosen face: the largest, the `index`-th from the left, the one at a `point`, or the best fit of a `box`."""

    index: int | None = None
    point: tuple[float, float] | None = None
    box: Box | None = None

    @classmethod
    def read(cls, text: str) -> Choice:
        """Parse `largest`, an index from 0, `x,y` or `left,top,right,bottom` (0 to 1); UsageError otherwise."""
        text = text.strip()
        if text == "largest":
            return cls()
        try:
            numbers = [float(part) for part in text.split(",")]
        except ValueError:
            numbers = []
        if len(numbers) == 1 and text.isdigit():
            return cls(index=int(text))
        inside = all(0 <= number <= 1 for number in numbers)
        if len(numbers) == 2 and inside:
            return cls(point=(numbers[0], numbers[1]))
        if len(numbers) == 4 and inside and numbers[0] < numbers[2] and numbers[1] < numbers[3]:
            return cls(box=(numbers[0], numbers[1], numbers[2], numbers[3]))
        raise UsageError(
            f"{text!r} chooses no face",
            "use largest, a number from 0 (left to right), x,y or left,top,right,bottom in parts of the picture",
        )

    def pick(self, faces: Sequence[Box]) -> int:
        """Return the index of the chosen face; UsageError if it isn't there."""
        if not faces:
            raise UsageError(
                "there is no face in the picture", "give its place as left,top,right,bottom, 0 to 1"
            )
        if self.index is not None:
            if self.index >= len(faces):
                raise UsageError(f"there is no face {self.index}: {len(faces)} found, numbered from 0")
            return self.index
        if (point := self.point) is not None:
            return min(range(len(faces)), key=lambda i: _distance(faces[i], point))
        if (box := self.box) is not None:
            found = max(range(len(faces)), key=lambda i: overlap(faces[i], box))
            if overlap(faces[found], box) == 0:
                raise UsageError(f"there is no face in the box {','.join(f'{side:g}' for side in box)}")
            return found
        return max(range(len(faces)), key=lambda i: area(faces[i]))


def area(box: Box) -> float:
    """Width times height."""
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def overlap(one: Box, other: Box) -> float:
    """Shared area over joint area."""
    shared = area(
        (max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3]))
    )
    return shared / max(area(one) + area(other) - shared, 1e-12)


def cropped(box: Box, picture: tuple[int, int], clip: tuple[int, int]) -> Box:
    """Return a box of a picture in parts of the clip, which shows the picture's middle; sizes are (width, height)."""
    scale = max(clip[0] / picture[0], clip[1] / picture[1])
    wide, high = (
        clip[0] / (scale * picture[0]),
        clip[1] / (scale * picture[1]),
    )  # the visible part of the picture
    moved = [((value - 0.5) / part + 0.5) for value, part in zip(box, (wide, high, wide, high), strict=True)]
    left, top, right, bottom = (min(max(value, 0.0), 1.0) for value in moved)
    if right <= left or bottom <= top:
        raise UsageError(
            "the face lies outside of what the clip shows of the picture", "choose another --size"
        )
    return left, top, right, bottom


def disjoint(masks: Tensor, claims: Tensor | None = None) -> Tensor:
    """Make masks [K, ...] in 0..1 disjoint: each place belongs to the speaker with the largest claim.

    The claims are the masks unless given; of equal claims the first wins. So two speakers never drive one mouth.
    """
    if len(masks) < 2:
        return masks
    owner = (masks if claims is None else claims).argmax(0, keepdim=True)
    mine = torch.arange(len(masks), device=masks.device).reshape(-1, *(1,) * (masks.ndim - 1)) == owner
    return torch.where(mine, masks, 0.0)


def _distance(box: Box, point: tuple[float, float]) -> float:
    """Return a measure of a point's distance from a box; inside, from its middle, which is always less."""
    x, y = point
    dx, dy = max(box[0] - x, 0.0, x - box[2]), max(box[1] - y, 0.0, y - box[3])
    middle = ((box[0] + box[2]) / 2 - x) ** 2 + ((box[1] + box[3]) / 2 - y) ** 2
    return 100 * (dx**2 + dy**2) + middle
