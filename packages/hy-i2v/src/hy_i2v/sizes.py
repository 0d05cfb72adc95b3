"""The size of a video that starts from a picture: one of the official ones, in the picture's shape.

The official list for a class of resolutions holds sizes whose sides are multiples of 32 and whose area is just at or
below the class's (HunyuanVideo-I2V; core facts, section 5.4). How one is picked is ours by default, theirs on request.
"""

from __future__ import annotations

import math

CLASSES = {"360p": 480, "540p": 720, "720p": 960}
"""The side of the square that has the area of each class."""
STEP, MOST_ASPECT = 32, 4.0

Size = tuple[int, int]
"""Height and width in pixels."""


def buckets(base: int, step: int = STEP) -> list[Size]:
    """All sizes of a class, the tall ones first."""
    area = round((base / step) ** 2)  # sides are counted in steps from here on
    found, high, wide = [], area, 1
    while high > 0:  # along the edge of the area, from the tallest size to the widest
        if max(high, wide) / min(high, wide) <= MOST_ASPECT:
            found.append((high * step, wide * step))
        if high * (wide + 1) <= area:
            wide += 1
        else:
            high -= 1
    return found


def nearest(height: int, width: int, sizes: list[Size]) -> Size:
    """The size whose shape is nearest to a picture's; a picture that has one of the sizes keeps it."""
    if (height, width) in sizes:
        return height, width
    return min(sizes, key=lambda size: abs(math.log(size[0] / size[1] * width / height)))


def official(height: int, width: int, sizes: list[Size]) -> Size:
    """The size that the official code picks: never a shape more extreme than the picture's.

    Shapes are rounded to five decimals before they are compared, and the picture's is not, so that some pictures of a
    listed size get another one: 704x1248 becomes 736x1248.
    """
    shape = height / width
    shapes = [round(h / w, 5) for h, w in sizes]
    fits = [i for i, one in enumerate(shapes) if (one <= shape if shape >= 1 else one > shape)]
    fits = fits or list(range(len(sizes)))  # a picture that no bucket is narrower or wider than
    return sizes[min(fits, key=lambda i: abs(shapes[i] - shape))]


def class_of(height: int, width: int) -> str | None:
    """The class that a model of this default size belongs to; None for small ones."""
    fitting = [name for name, base in CLASSES.items() if base * base <= height * width]
    return fitting[-1] if fitting else None
