"""Draw characters: flat colours, anti-aliased, straight from signed distances."""

from __future__ import annotations

import numpy as np

from hy_world.attributes import COLOURS
from hy_world.characters import HAIRS, HIP, SKINS, Character, Stage
from hy_world.characters_geometry import (
    BROW_HALF,
    BROW_RAISE,
    BROW_TILT,
    BROW_Y,
    EYE_SIZE,
    EYE_X,
    EYE_Y,
    FRINGE,
    LIP,
    MOUTH_HALF,
    MOUTH_Y,
    NOSE_Y,
    OPEN,
    PUPIL,
    SMILE,
    Pose,
    pose,
    slots,
)
from hy_world.render import backdrop

BLACK, WHITE, MOUTH = (20, 15, 20), (255, 255, 255), (110, 12, 28)
_LIMB, _FOOT = 0.22, 0.27  # radii, in head radii
_TORSO, _TORSO_TOP = 0.62, 0.9  # half width, upper edge


def render_stage(stage: Stage, height: int = 64, width: int = 64) -> np.ndarray:
    """Draw a clip, uint8 [T, H, W, 3]."""
    video = np.repeat(backdrop(stage.background, height, width)[None], stage.frames, axis=0)
    for one, slot in zip(stage.characters, slots(len(stage.characters), height, width), strict=True):
        canvas = Canvas(video[:, :, slot.left : slot.right], slot.left)
        draw(canvas, one, pose(one, stage.framing, slot))
    return (video + 0.5).astype(np.uint8)


def face_masks(stage: Stage, height: int = 64, width: int = 64) -> np.ndarray:
    """Return how much of each pixel each character's head covers, float32 [people, T, H, W] in 0..1."""
    masks = np.zeros((len(stage.characters), stage.frames, height, width), np.float32)
    for mask, one, slot in zip(
        masks, stage.characters, slots(len(stage.characters), height, width), strict=True
    ):
        laid = pose(one, stage.framing, slot)
        part = np.zeros((stage.frames, height, slot.right - slot.left, 1), np.float32)
        head(Canvas(part, slot.left), one.look.face, laid.centre, laid.half, (1.0,))
        mask[:, :, slot.left : slot.right] = part[..., 0]
    return masks


class Canvas:
    """Frames [T, H, W, C] to draw on; `left` is the picture's column at which they begin."""

    def __init__(self, pixels: np.ndarray, left: int = 0) -> None:
        self.pixels, self.left = pixels, left

    def window(
        self, low: np.ndarray, high: np.ndarray
    ) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray] | None:
        """Cut out what lies between two corners [T, 2] in any frame: slices, x [1, 1, w] and y [1, h, 1]."""
        height, width = self.pixels.shape[1:3]
        x0, y0 = np.floor(low.min(0)).astype(int) - 1
        x1, y1 = np.ceil(high.max(0)).astype(int) + 1
        x0, x1 = max(x0 - self.left, 0), min(x1 - self.left, width)
        y0, y1 = max(y0, 0), min(y1, height)
        if x0 >= x1 or y0 >= y1:
            return None
        x = np.arange(x0, x1, dtype=np.float32) + (0.5 + self.left)
        y = np.arange(y0, y1, dtype=np.float32) + 0.5
        return (slice(y0, y1), slice(x0, x1)), x[None, None, :], y[None, :, None]

    def fill(self, place: tuple[slice, slice], alpha: np.ndarray, colour: tuple[float, ...]) -> None:
        """Blend a colour in where `alpha` [T, h, w] says."""
        part = self.pixels[:, place[0], place[1]]
        part += alpha[..., None] * (np.asarray(colour, np.float32) - part)


def _column(values: np.ndarray | float) -> np.ndarray:
    return np.asarray(values, np.float32).reshape(-1, 1, 1)


def ellipse(
    canvas: Canvas,
    centre: np.ndarray,
    half_x: np.ndarray | float,
    half_y: np.ndarray | float,
    colour: tuple[float, ...],
    power: float = 2.0,
    above: np.ndarray | None = None,
    below: np.ndarray | None = None,
) -> None:
    """Fill a (super)ellipse around `centre` [T, 2]; only its part above or below a height [T] if given."""
    reach = np.stack(np.broadcast_arrays(half_x, half_y, np.zeros(len(centre)))[:2], axis=1)
    found = canvas.window(centre - reach, centre + reach)
    if found is None:
        return
    place, x, y = found
    dx = np.abs(x - _column(centre[:, 0])) / _column(half_x)
    dy = np.abs(y - _column(centre[:, 1])) / _column(half_y)
    value = dx**power + dy**power
    # Distance to the outline to first order: value over its gradient.
    slope = power * np.sqrt(
        (dx ** (power - 1) / _column(half_x)) ** 2 + (dy ** (power - 1) / _column(half_y)) ** 2
    )
    alpha = np.clip(0.5 - (value - 1) / np.maximum(slope, 1e-6), 0, 1)
    if above is not None:
        alpha = alpha * np.clip(0.5 + _column(above) - y, 0, 1)
    if below is not None:
        alpha = alpha * np.clip(0.5 + y - _column(below), 0, 1)
    canvas.fill(place, alpha, colour)


def capsule(
    canvas: Canvas, start: np.ndarray, end: np.ndarray, radius: float, colour: tuple[float, ...]
) -> None:
    """Fill a line with round ends from `start` to `end`, both [T, 2]."""
    found = canvas.window(np.minimum(start, end) - radius, np.maximum(start, end) + radius)
    if found is None:
        return
    place, x, y = found
    (ax, ay), (bx, by) = (
        (_column(start[:, 0]), _column(start[:, 1])),
        (_column((end - start)[:, 0]), _column((end - start)[:, 1])),
    )
    px, py = x - ax, y - ay
    share = np.clip((px * bx + py * by) / np.maximum(bx * bx + by * by, 1e-6), 0, 1)
    distance = np.hypot(px - share * bx, py - share * by)
    # A line thinner than a pixel keeps its weight.
    alpha = np.clip(0.5 + radius - distance, 0, 1) * min(1.0, 2 * radius / 1.0 if radius < 0.5 else 1.0)
    canvas.fill(place, alpha, colour)


def head(
    canvas: Canvas,
    face: str,
    centre: np.ndarray,
    half: tuple[float, float],
    colour: tuple[float, ...],
    above: np.ndarray | None = None,
) -> None:
    """Fill a head's outline. `centre` is [2], x and y."""
    ellipse(canvas, centre, *half, colour, 4.0 if face == "square" else 2.0, above=above)


def hair(canvas: Canvas, style: str, laid: Pose, colour: tuple[float, ...]) -> None:
    """Fill the hair behind the head."""
    half_x, half_y = laid.half
    x, y = laid.centre.T
    if style == "long":
        capped = laid.centre + [0, 0.3 * half_y]
        ellipse(canvas, capped, 1.22 * half_x, 1.42 * half_y, colour, 4.0, below=y)
    ellipse(canvas, laid.centre, 1.12 * half_x, 1.12 * half_y, colour, above=y if style != "long" else y + 1)
    if style == "spiky":
        for k in (-1, 0, 1):
            root = np.stack([x + 0.5 * k * half_x, y - (0.98 - 0.17 * abs(k)) * half_y], axis=1)
            tip = root + [0.2 * k * half_x, -0.3 * laid.radius]
            capsule(canvas, root, tip, 0.16 * laid.radius, colour)


def draw(canvas: Canvas, character: Character, laid: Pose) -> None:
    """Draw one character as it is laid out."""
    look, radius = character.look, laid.radius
    skin, strands = SKINS[look.skin], HAIRS[look.hair]
    shirt, trousers = COLOURS[look.shirt], COLOURS[look.trousers]
    hair(canvas, look.style, laid, strands)
    limb = _LIMB * radius
    for leg in (2, 3):
        root, knee, ankle = np.moveaxis(laid.limbs[:, leg], 1, 0)
        capsule(canvas, knee, ankle, limb, shirt)
        capsule(canvas, root, knee, limb, trousers)
        ellipse(canvas, ankle, _FOOT * radius, _FOOT * radius, BLACK)
    middle = laid.centre + np.asarray([0, 0.5 * (_TORSO_TOP + HIP[1] + _LIMB)], np.float64) * radius
    ellipse(canvas, middle, _TORSO * radius, 0.5 * (HIP[1] + _LIMB - _TORSO_TOP) * radius, shirt, 4.0)
    for arm in (0, 1):
        root, elbow, wrist = np.moveaxis(laid.limbs[:, arm], 1, 0)
        capsule(canvas, root, elbow, limb, shirt)
        capsule(canvas, elbow, wrist, limb, trousers)
    head(canvas, look.face, laid.centre, laid.half, skin)
    over = (laid.half[0] + 0.5, laid.half[1] + 0.5)  # no line of skin between the fringe and the hair behind
    head(canvas, look.face, laid.centre, over, strands, above=laid.centre[:, 1] + FRINGE * laid.half[1])
    _face(canvas, character, laid, skin)


def _face(canvas: Canvas, character: Character, laid: Pose, skin: tuple[int, int, int]) -> None:
    half_x, half_y = laid.half
    performance = character.performance
    smile, raised, tilt, eyes = performance.features.T
    x, y = laid.centre[:, 0] + laid.shift, laid.centre[:, 1]
    for side in (-1, 1):
        eye = np.stack([x + side * EYE_X * half_x * laid.narrow, y + EYE_Y * half_y], axis=1)
        ellipse(canvas, eye, EYE_SIZE[0] * half_x * laid.narrow, EYE_SIZE[1] * half_x * eyes, WHITE)
        pupil = eye + np.stack([0.25 * laid.shift, np.zeros_like(y)], axis=1)
        ellipse(canvas, pupil, PUPIL * half_x, PUPIL * half_x, BLACK)
        brow = y + (BROW_Y - BROW_RAISE * raised) * half_y
        reach, rise = side * BROW_HALF * half_x * laid.narrow, BROW_TILT * tilt * half_y
        outer = np.stack([eye[:, 0] + reach, brow + rise], axis=1)
        inner = np.stack([eye[:, 0] - reach, brow - rise], axis=1)
        capsule(canvas, inner, outer, 0.075 * half_x, BLACK)
    nose = np.stack([laid.centre[:, 0] + 1.3 * laid.shift, y + NOSE_Y * half_y], axis=1)
    ellipse(canvas, nose, 0.08 * half_x, 0.09 * half_x, tuple(0.8 * part for part in skin))
    _mouth(canvas, x, y + MOUTH_Y * half_y, smile, performance.mouth, laid)


def _mouth(
    canvas: Canvas, x: np.ndarray, y: np.ndarray, smile: np.ndarray, opening: np.ndarray, laid: Pose
) -> None:
    half_x, half_y = laid.half
    reach = np.stack(
        [MOUTH_HALF * half_x * laid.narrow, np.full_like(x, (SMILE + LIP + OPEN) * half_y)], axis=1
    )
    centre = np.stack([x, y], axis=1)
    found = canvas.window(centre - reach, centre + reach)
    if found is None:
        return
    place, columns, rows = found
    u = (columns - _column(x)) / _column(reach[:, 0])
    inside = np.clip(1 - u * u, 0, 1)
    middle = _column(y) + SMILE * half_y * _column(smile) * (inside - 0.5)
    half = half_y * (LIP + OPEN * _column(opening) * np.sqrt(inside))
    # What the band covers of each pixel's height, so that a thin lip keeps its weight.
    lower = np.minimum(rows + 0.5, middle + half)
    upper = np.maximum(rows - 0.5, middle - half)
    edge = np.clip(0.5 + _column(reach[:, 0]) * (1 - np.abs(u)), 0, 1)
    canvas.fill(place, np.clip(lower - upper, 0, 1) * edge, MOUTH)
