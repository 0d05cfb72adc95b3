"""Draw a scene: anti-aliased shapes over a background, straight from signed distances."""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from hy_world.attributes import COLOURS
from hy_world.scene import EXTENT, FRAMES, Scene

_PLAIN = {"white": (245, 245, 245), "black": (12, 12, 12), "gray": (128, 128, 128)}
_GRADIENT = {  # top, bottom
    "sky": ((150, 195, 240), (215, 232, 246)),
    "sunset": ((62, 42, 96), (172, 112, 92)),
}
_CHECKS = ((200, 190, 162), (166, 156, 128))
_CHECKS_ACROSS = 8  # cells along the shorter side: 8 pixels each at 64

# A regular polygon or star, folded into one half of one point, is a half plane: (number of points, angle of
# the point on an upright shape, radius of the points, radius of the dents between them), radii per unit of
# radius.
_POINTED = {
    "square": (4, math.pi / 4, EXTENT["square"], EXTENT["square"] * math.cos(math.pi / 4)),
    "triangle": (3, -math.pi / 2, EXTENT["triangle"], EXTENT["triangle"] / 2),
    "star": (5, -math.pi / 2, EXTENT["star"], EXTENT["star"] * 0.42),
}


@cache
def backdrop(background: str, height: int, width: int) -> np.ndarray:
    """Return the empty background, float32 [H, W, 3] in 0..255, read-only."""
    if background in _PLAIN:
        picture = np.broadcast_to(np.asarray(_PLAIN[background], np.float32), (height, width, 3)).copy()
    elif background in _GRADIENT:
        top, bottom = np.asarray(_GRADIENT[background], np.float32)
        way = ((np.arange(height, dtype=np.float32) + 0.5) / height)[:, None, None]
        picture = np.broadcast_to(top + (bottom - top) * way, (height, width, 3)).copy()
    else:
        cell = min(height, width) / _CHECKS_ACROSS
        rows, columns = np.arange(height) // cell, np.arange(width) // cell
        odd = ((rows[:, None] + columns) % 2)[..., None]
        picture = np.where(odd, np.asarray(_CHECKS[1], np.float32), np.asarray(_CHECKS[0], np.float32))
    picture.flags.writeable = False
    return picture


def coverage(shape: str, dx: np.ndarray, dy: np.ndarray, radius: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Return how much of each pixel a shape covers, 0..1, from the offset to its centre (all broadcast).

    All broadcast to [..., H, W].
    """
    if shape == "circle":
        return np.clip(0.5 + radius - np.sqrt(dx * dx + dy * dy), 0, 1)
    points, upright, tip, dent = _POINTED[shape]
    half = math.pi / points
    # Fold by angle: the distance to one edge's line is then the distance to the whole outline.
    fold = np.arctan2(dy, dx) - (angle + upright)
    fold = np.abs((fold + half) % (2 * half) - half)
    reach = np.sqrt(dx * dx + dy * dy)
    # The edge runs from the tip at angle 0 to the dent at angle `half`; its outward normal is (a, b).
    a, b = dent * math.sin(half), tip - dent * math.cos(half)
    norm = math.hypot(a, b)
    distance = reach * (a * np.cos(fold) + b * np.sin(fold)) / norm - radius * (tip * a / norm)
    return np.clip(0.5 - distance, 0, 1)


def render(scene: Scene, frames: int = FRAMES, height: int = 64, width: int = 64) -> np.ndarray:
    """Draw a clip, uint8 [T, H, W, 3]; `UsageError` if the frame isn't of the scene's shape."""
    video = np.repeat(backdrop(scene.background, height, width)[None], frames, axis=0)
    for thing, track in zip(scene.things, scene.tracks(frames, height, width), strict=True):
        colour = np.asarray(COLOURS[thing.colour], np.float32)
        reach = math.ceil(track.radius.max() * EXTENT[thing.shape]) + 1
        # One window per frame, around the centre; the windows' pixels are drawn all at once.
        left, top = np.floor(track.x).astype(int) - reach, np.floor(track.y).astype(int) - reach
        span = np.arange(2 * reach + 1, dtype=np.float32) + 0.5
        dx = (span + (left - track.x)[:, None]).astype(np.float32)[:, None, :]
        dy = (span + (top - track.y)[:, None]).astype(np.float32)[:, :, None]
        radius, angle = (
            np.asarray(track.radius, np.float32)[:, None, None],
            np.asarray(track.angle, np.float32)[:, None, None],
        )
        alpha = coverage(thing.shape, dx, dy, radius, angle)[..., None]
        for i in range(frames):
            rows = slice(max(top[i], 0), top[i] + span.size)
            columns = slice(max(left[i], 0), left[i] + span.size)
            part = video[i, rows, columns]
            y, x = rows.start - top[i], columns.start - left[i]
            part += alpha[i, y : y + part.shape[0], x : x + part.shape[1]] * (colour - part)
    return (video + 0.5).astype(np.uint8)
