"""Draw poses as DWPose draws them: the picture that a pose-driven video network is trained on.

Limbs are filled ellipses in 18 hues, dimmed to 0.6; joints are full-coloured discs; hands have edges in 20 hues and
blue joints; faces are white dots. Sizes are in pixels at `scale` 1, which is DWPose's own.
"""

from __future__ import annotations

import colorsys
import math
from typing import Any

import numpy as np
from hy_core.errors import MissingError

from hy_avatar.pose import BODY, FACE, LEFT_HAND, RIGHT_HAND, PoseTrack

LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13), (1, 0),
    (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip
COLOURS = (
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0), (0, 255, 85),
    (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255), (170, 0, 255),
    (255, 0, 255), (255, 0, 170), (255, 0, 85),
)  # fmt: skip
HAND_EDGES = tuple(
    (0 if step == 0 else start + step - 1, start + step) for start in (1, 5, 9, 13, 17) for step in range(4)
)
_STICK, _JOINT, _HAND_LINE, _HAND_JOINT, _FACE_DOT = 4, 4, 2, 4, 3
_DIM = 0.6
_USUAL = 512  # the shorter side that DWPose's sizes are right for


def scale_for(height: int, width: int) -> float:
    """Return the scale of line widths for a frame: 1 from 512 pixels on, less for smaller ones."""
    return min(1.0, min(height, width) / _USUAL)


def draw(
    track: PoseTrack,
    height: int,
    width: int,
    scale: float = 1.0,
    face: bool = True,
    hands: bool = True,
) -> np.ndarray:
    """Draw a clip of skeletons on black, uint8 [F, H, W, 3] RGB.

    Leave the `face` out when an expression drives it: its points carry the actor's identity.
    """
    frames = np.zeros((len(track), height, width, 3), np.uint8)
    for canvas, people in zip(frames, track.points, strict=True):
        draw_frame(canvas, people, scale, face, hands)
    return frames


def draw_frame(canvas: np.ndarray, people: np.ndarray, scale: float, face: bool, hands: bool) -> None:
    """Draw people [N, 134, 2] (parts of the picture, NaN missing) on a black canvas uint8 [H, W, 3]."""
    cv2 = _opencv()
    height, width = canvas.shape[:2]
    pixels = people * [width, height]
    for person in pixels:
        for (a, b), colour in zip(LIMBS, COLOURS, strict=False):
            if np.isfinite(person[[a, b]]).all():
                _limb(cv2, canvas, person[a], person[b], colour, scale)
    np.copyto(canvas, (canvas * _DIM).astype(np.uint8))
    for person in pixels:
        for point, colour in zip(person[BODY], COLOURS, strict=True):
            _dot(cv2, canvas, point, _JOINT, colour, scale)
    for person in pixels:
        for hand in (person[LEFT_HAND], person[RIGHT_HAND]) if hands else ():
            _hand(cv2, canvas, hand, scale)
        for point in person[FACE] if face else ():
            _dot(cv2, canvas, point, _FACE_DOT, (255, 255, 255), scale)


def _opencv() -> Any:
    try:
        import cv2
    except ImportError as problem:
        raise MissingError("drawing a skeleton needs OpenCV", 'pip install "hy-avatar[pose]"') from problem
    return cv2


def _size(pixels: float, scale: float) -> int:
    return max(1, round(pixels * scale))


def _limb(
    cv2: Any, canvas: np.ndarray, a: np.ndarray, b: np.ndarray, colour: tuple[int, int, int], scale: float
) -> None:
    middle = (a + b) / 2
    length = math.hypot(*(a - b))
    angle = math.degrees(math.atan2(a[1] - b[1], a[0] - b[0]))
    axes = (int(length / 2), _size(_STICK, scale))
    outline = cv2.ellipse2Poly((int(middle[0]), int(middle[1])), axes, int(angle), 0, 360, 1)
    cv2.fillConvexPoly(canvas, outline, colour)


def _dot(
    cv2: Any, canvas: np.ndarray, point: np.ndarray, radius: int, colour: tuple[int, int, int], scale: float
) -> None:
    if np.isfinite(point).all():
        size = 0 if radius * scale < 1 else round(radius * scale)  # at small scales a single pixel
        cv2.circle(canvas, (int(point[0]), int(point[1])), size, colour, thickness=-1)


def _hand(cv2: Any, canvas: np.ndarray, hand: np.ndarray, scale: float) -> None:
    for index, (a, b) in enumerate(HAND_EDGES):
        if np.isfinite(hand[[a, b]]).all():
            hue = tuple(255 * part for part in colorsys.hsv_to_rgb(index / len(HAND_EDGES), 1.0, 1.0))
            ends = [tuple(int(value) for value in hand[k]) for k in (a, b)]
            cv2.line(canvas, *ends, hue, thickness=_size(_HAND_LINE, scale))
    for point in hand:
        _dot(cv2, canvas, point, _HAND_JOINT, (0, 0, 255), scale)
