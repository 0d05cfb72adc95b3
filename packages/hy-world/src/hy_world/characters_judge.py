"""Tell from the pixels alone who is in a clip of characters and what face and body do.

No learned part. The background is the nearest one in the upper corners; skin, hair and clothes are the palette
colours found most in their places; the head is the region between the skin's edges; mouth, eyes and brows are
measured by how much of their colour lies where a face has them; each limb is the pair of angles whose way
through the picture has the limb's colours.

All of it is one subject: reading one clip of characters back from its pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from hy_world import characters_geometry as geometry
from hy_world.attributes import COLOURS
from hy_world.characters import (
    ARM,
    EXPRESSIONS,
    FACES,
    FRAMINGS,
    HAIRS,
    HIP,
    LEG,
    PLACES,
    SHOULDER,
    SKINS,
    STYLES,
    Character,
    Look,
    Performance,
)
from hy_world.characters_render import BLACK, MOUTH, WHITE, Canvas, draw, head
from hy_world.judge import NONE
from hy_world.render import backdrop

_NEAR = 55.0  # a pixel this close to a colour has it, of 255 * sqrt(3)
_LEAST_FACE = 0.3  # of the expected area of skin, below which there is no face


@dataclass(frozen=True, eq=False)
class SeenCharacter:
    """One character as the judge sees it; NaN and "none" where it isn't there. Pixels of the whole frame."""

    look: Look  # attributes are "none" where unseen; trousers also in a close-up
    background: str
    mouth: np.ndarray  # [T], 0..1
    features: np.ndarray  # [T, 4] as in EXPRESSIONS
    expressions: tuple[str, ...]  # [T]
    turn: np.ndarray  # [T]
    joints: np.ndarray  # [T, 17, 2] in the order of `geometry.BODY_JOINTS`; NaN for those not looked for
    face: np.ndarray  # [T, 4]: box of the head without hair

    @property
    def expression(self) -> str:
        """The clip's expression: the one most frames show."""
        seen = [name for name in self.expressions if name != NONE]
        return max(EXPRESSIONS, key=seen.count) if seen else NONE


def judge_stage(video: np.ndarray, framing: str, people: int = 1) -> tuple[SeenCharacter, ...]:
    """Describe the characters of a clip, uint8 [T, H, W, 3], from left to right."""
    pixels = video.astype(np.float32)
    return tuple(_judge(pixels, framing, slot) for slot in geometry.slots(people, *video.shape[1:3]))


@dataclass
class _Part:
    """A character's slot and what is known of it so far; x counts from the slot's left edge."""

    pixels: np.ndarray  # [T, H, W, 3]
    empty: np.ndarray  # [H, W, 3], the background
    radius: float  # expected head radius
    x: np.ndarray  # [1, 1, W] of the pixels' centres
    y: np.ndarray  # [1, H, 1]


def _judge(video: np.ndarray, framing: str, slot: geometry.Slot) -> SeenCharacter:
    part, background = _part(video, framing, slot)
    frames = len(video)
    level = FRAMINGS[framing][0] * slot.unit + (slot.height - slot.unit) / 2
    rest = np.asarray([(slot.right - slot.left) / 2, level], np.float64)
    skin = _commonest(part, SKINS, rest, 0.9)
    heads = _heads(part, skin, rest)
    seen = ~np.isnan(heads.centre[:, 0])
    if seen.mean() < 0.5:
        blank = np.full(frames, np.nan)
        nobody = Look(*[NONE] * 6)
        joints = np.full((frames, 17, 2), np.nan)
        return SeenCharacter(
            nobody,
            background,
            blank,
            np.full((frames, 4), np.nan),
            (NONE,) * frames,
            blank,
            joints,
            np.full((frames, 4), np.nan),
        )
    middle = heads.centre[seen].mean(0)
    strands = _hair(part, heads, seen)
    radius = part.radius
    shirt = _commonest(part, COLOURS, middle + [0, 1.8 * radius], 0.55)
    style = NONE
    if strands != NONE and shirt != NONE:
        style, heads = _shapes(part, heads, seen, Look(skin, strands, STYLES[0], heads.shape, shirt, shirt))
    others = {name: colour for name, colour in COLOURS.items() if name != shirt}
    trousers = NONE
    if framing != "face":
        trousers = _commonest(part, others, middle + [0, 2.5 * radius], 2.4)
    mouth, turn, features = _features(part, heads, skin)
    expressions = (NONE,) * frames
    if style != NONE:
        look = Look(skin, strands, style, heads.shape, shirt, shirt)
        expressions = _expressions(part, heads, look, mouth, turn)
    joints = np.full((frames, 17, 2), np.nan)
    if framing != "face" and trousers != NONE:
        _joints(part, heads, shirt, trousers, framing == "full", joints)
        joints[..., 0] += slot.left
    half = np.asarray(heads.half, np.float64)
    centre = heads.centre + [slot.left, 0]
    # The nose and the eyes sit where the head and its turn say.
    moved = geometry.TURN * half[0] * np.nan_to_num(turn)
    joints[:, 0] = centre + np.stack([1.3 * moved, np.full(frames, geometry.NOSE_Y * half[1])], axis=1)
    for index, side in ((1, 1), (2, -1)):
        joints[:, index] = centre + np.stack([moved + side * geometry.EYE_X * half[0], 0 * moved], axis=1)
        joints[:, index + 2] = centre + [side * half[0], 0]
    return SeenCharacter(
        Look(skin, strands, style, heads.shape, shirt, trousers),
        background,
        mouth,
        features,
        expressions,
        turn,
        joints,
        np.concatenate([centre - half, centre + half], axis=1),
    )


def _part(video: np.ndarray, framing: str, slot: geometry.Slot) -> tuple[_Part, str]:
    height, width = video.shape[1:3]
    columns = slice(slot.left, slot.right)
    pixels = video[:, :, columns]
    # Corners above the shoulders; a limb there in some frames doesn't matter to the median.
    edge = max(2, (slot.right - slot.left) // 16)
    rows = slice(0, max(height // 4, 2))
    strips = np.median(np.concatenate([pixels[:, rows, :edge], pixels[:, rows, -edge:]], axis=2), axis=0)
    distance = {}
    for name in PLACES:
        empty = backdrop(name, height, width)[rows, columns]
        template = np.concatenate([empty[:, :edge], empty[:, -edge:]], axis=1)
        distance[name] = np.minimum(_length(strips - template), 70).mean()
    name = min(distance, key=distance.__getitem__)
    y, x = np.arange(height) + 0.5, np.arange(slot.right - slot.left) + 0.5
    radius = FRAMINGS[framing][1] * slot.unit
    empty = backdrop(name, height, width)[:, columns]
    return _Part(pixels, empty, radius, x[None, None, :], y[None, :, None]), name


def _length(colour: np.ndarray) -> np.ndarray:
    return np.sqrt(np.einsum("...c,...c", colour, colour))


def _commonest(part: _Part, colours: dict[str, tuple[int, int, int]], place: np.ndarray, reach: float) -> str:
    """Return the colour that most pixels around a place have, within `reach` head radii; "none" for none."""
    near = np.hypot(part.x[0] - place[0], part.y[0] - place[1]) < reach * part.radius
    if not near.any():
        return NONE
    pixels = part.pixels[:, near]
    unlike = _length(pixels - part.empty[near]) > 30
    counts = {}
    for name, colour in colours.items():
        counts[name] = ((_length(pixels - np.asarray(colour, np.float32)) < _NEAR) & unlike).sum()
    best = max(counts, key=counts.__getitem__)
    return best if counts[best] > 0.02 * unlike.size else NONE


@dataclass
class _Heads:
    centre: np.ndarray  # [T, 2], NaN where there is no face
    half: tuple[float, float]
    shape: str


def _heads(part: _Part, skin: str, rest: np.ndarray) -> _Heads:
    """Find the head's centre in every frame and guess its shape, from the region between the skin's edges."""
    frames = len(part.pixels)
    missing = np.full((frames, 2), np.nan)
    if skin == NONE:
        return _Heads(missing, FACES["round"], NONE)
    radius = part.radius
    near = (np.abs(part.x - rest[0]) < 1.8 * radius) & (np.abs(part.y - rest[1]) < 1.9 * radius)
    distance, unlike = (
        _length(part.pixels - np.asarray(SKINS[skin], np.float32)),
        _length(part.pixels - part.empty),
    )
    other = np.min(
        [_length(part.pixels - np.asarray(one, np.float32)) for one in (*HAIRS.values(), MOUTH)], axis=0
    )
    is_skin = near & (distance < _NEAR) & (distance < unlike) & (distance < other)
    is_skin = _joined(is_skin, np.hypot(part.x - rest[0], part.y - rest[1]) < 0.7 * radius, round(2 * radius))
    # Specks elsewhere must not stretch the region: rows and columns with next to no skin don't count.
    is_skin &= is_skin.sum(2, keepdims=True) > 0.25 * radius
    is_skin &= is_skin.sum(1, keepdims=True) > 0.2 * radius
    left = np.maximum.accumulate(is_skin, axis=2)
    right = np.maximum.accumulate(is_skin[:, :, ::-1], axis=2)[:, :, ::-1]
    region = (left & right).astype(np.float32)
    area = region.sum((1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        centroid = np.stack([(region * part.x).sum((1, 2)), (region * part.y).sum((1, 2))], 1) / area[:, None]
    seen = area > _LEAST_FACE * 3.0 * radius**2
    if seen.sum() < 1:
        return _Heads(missing, FACES["round"], NONE)
    best, shape, offset = -1.0, NONE, 0.0
    some = np.flatnonzero(seen)[:: max(1, int(seen.sum()) // 4)]
    for name, factors in FACES.items():
        half = (radius * factors[0], radius * factors[1])
        drop = _centroid(name, half)
        overlap = _overlap(region[some], name, centroid[some] - [0, drop], half)
        if overlap > best:
            best, shape, offset = overlap, name, drop
    centre = np.where(seen[:, None], centroid - [0, offset], np.nan)
    if best < 0.5:
        return _Heads(missing, FACES["round"], NONE)
    return _Heads(centre, (radius * FACES[shape][0], radius * FACES[shape][1]), shape)


def _joined(there: np.ndarray, seed: np.ndarray, reach: int) -> np.ndarray:
    """What of a mask [T, H, W] hangs together with its part in the seed, up to `reach` pixels away."""
    found = there & seed
    for _ in range(reach):
        grown = found.copy()
        for axis in (1, 2):
            grown |= np.roll(grown, 1, axis) | np.roll(grown, -1, axis)
        grown &= there
        if (grown == found).all():
            break
        found = grown
    return found


def _visible_head(
    shape: str, centre: np.ndarray, half: tuple[float, float], height: int, width: int
) -> np.ndarray:
    """Draw the head below the fringe, [T, H, W] in 0..1."""
    drawn = np.zeros((len(centre), height, width, 1), np.float32)
    head(Canvas(drawn), shape, centre, half, (1.0,))
    rows = np.arange(height) + 0.5
    below = np.clip(0.5 + rows - (centre[:, 1:2] + geometry.FRINGE * half[1]), 0, 1)
    return drawn[..., 0] * below[:, :, None]


def _centroid(shape: str, half: tuple[float, float]) -> float:
    """Return how far below the head's centre the middle of its visible part is."""
    size = math.ceil(2.6 * max(half))
    centre = np.full((1, 2), size / 2)
    drawn = _visible_head(shape, centre, half, size, size)
    return float((drawn.sum(2) @ (np.arange(size) + 0.5))[0] / drawn.sum() - size / 2)


def _overlap(region: np.ndarray, shape: str, centre: np.ndarray, half: tuple[float, float]) -> float:
    drawn = _visible_head(shape, centre, half, *region.shape[1:])
    return float(np.minimum(drawn, region).sum() / np.maximum(drawn, region).sum())


def _hair(part: _Part, heads: _Heads, seen: np.ndarray) -> str:
    """Return the hair's colour: what the fringe has."""
    top = np.nanmean(heads.centre[seen], axis=0) - [0, 0.9 * heads.half[1]]
    return _commonest(part, HAIRS, top, 0.35)


def _shapes(part: _Part, heads: _Heads, seen: np.ndarray, look: Look) -> tuple[str, _Heads]:
    """Return the hair's style, and the heads of the shape that fits: of all drawings the most alike."""
    some = np.flatnonzero(seen)[:: max(1, int(seen.sum()) // 5)]
    guessed = _centroid(heads.shape, heads.half)
    window = _window(part, heads.centre[some], 1.6)
    actual = _soft(part.pixels[some][:, *window])
    choices, drawings = [], []
    for shape, factors in FACES.items():
        half = (part.radius * factors[0], part.radius * factors[1])
        found = _Heads(heads.centre + np.array([0, guessed - _centroid(shape, half)]), half, shape)
        for style in STYLES:
            choices.append((style, found))
            drawn = _draw(part, found, some, replace(look, style=style, face=shape))
            drawings.append(_soft(drawn[:, *window]))
    # Sideways the turn of the features would mislead.
    scores = {shift: _unlikeness(actual, drawings, shift).sum(1) for shift in _SHIFTS if not shift[0]}
    shift = min(scores, key=lambda one: scores[one].min())
    style, found = choices[int(scores[shift].argmin())]
    return style, replace(found, centre=found.centre - shift)


def _draw(
    part: _Part,
    heads: _Heads,
    frames: np.ndarray,
    look: Look,
    expression: str = "neutral",
    mouth: np.ndarray | None = None,
    turn: np.ndarray | None = None,
) -> np.ndarray:
    """Draw a character with its arms down where the heads are, [T, H, W, 3]."""
    count = len(frames)
    features = np.tile(np.asarray(EXPRESSIONS[expression], np.float64), (count, 1))
    still = np.zeros(count)
    opening, turn = (still if value is None else np.nan_to_num(value[frames]) for value in (mouth, turn))
    limbs = np.zeros((count, 8))
    acting = Performance("stand", (expression,) * count, features, opening, turn, np.zeros((count, 2)), limbs)
    laid = geometry.lay(acting, heads.centre[frames], part.radius, heads.half)
    canvas = np.repeat(part.empty[None], count, axis=0)
    draw(Canvas(canvas), Character(look, acting), laid)
    return canvas


def _window(part: _Part, centre: np.ndarray, reach: float) -> tuple[slice, slice]:
    """Cut out `reach` head radii around the heads."""
    height, width = part.pixels.shape[1:3]
    low, high = centre.min(0) - reach * part.radius, centre.max(0) + reach * part.radius
    rows = slice(max(int(low[1]), 0), min(math.ceil(high[1]), height))
    return rows, slice(max(int(low[0]), 0), min(math.ceil(high[0]), width))


def _soft(pixels: np.ndarray) -> np.ndarray:
    """Blur a little, so that half a pixel doesn't matter."""
    for axis in (1, 2):
        pixels = (np.roll(pixels, 1, axis) + 2 * pixels + np.roll(pixels, -1, axis)) / 4
    return pixels


_SHIFTS = tuple((x, y) for y in (0, -1, 1) for x in (0, -1, 1))  # in pixels


def _unlikeness(actual: np.ndarray, drawings: list[np.ndarray], shift: tuple[int, int]) -> np.ndarray:
    """Return each frame's squared distance from each drawing when it is moved by (x, y) pixels, [K, T]."""
    moved = np.roll(actual, shift, axis=(2, 1))
    return np.stack([np.einsum("thwc,thwc->t", drawn - moved, drawn - moved) for drawn in drawings])


def _share(pixels: np.ndarray, base: tuple[int, ...], colour: tuple[int, ...]) -> np.ndarray:
    """Return how much of each pixel is of a colour and not of the base, 0..1; 0 if it is like neither."""
    towards = np.asarray(colour, np.float32) - np.asarray(base, np.float32)
    difference = pixels - np.asarray(base, np.float32)
    share = np.einsum("...c,c->...", difference, towards) / float(towards @ towards)
    rest = _length(difference - np.clip(share, 0, 1)[..., None] * towards)
    return np.clip(share, 0, 1) * np.clip(2 - rest / 50, 0, 1)


def _unmix(pixels: np.ndarray, skin: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return how much white and how much black is mixed into the skin at each pixel.

    Sums of these are the same for a sharp and a blurred picture, for blur mixes linearly.
    """
    towards = np.asarray([WHITE, BLACK], np.float32) - np.asarray(skin, np.float32)
    shares = (pixels - np.asarray(skin, np.float32)) @ np.linalg.pinv(towards).astype(np.float32)
    return shares[..., 0], shares[..., 1]


def _features(part: _Part, heads: _Heads, skin: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Measure mouth opening [T], head turn [T], and the four numbers of the expression [T, 4]."""
    half_x, half_y = heads.half
    tone = SKINS[skin]
    cx, cy = (np.nan_to_num(value)[:, None, None] for value in heads.centre.T)
    u, v = (part.x - cx) / half_x, (part.y - cy) / half_y
    shape = heads.shape if heads.shape != NONE else "round"
    size = part.pixels.shape[1:3]
    inside = _visible_head(shape, np.nan_to_num(heads.centre), (0.94 * half_x, 0.94 * half_y), *size)
    white, black = _unmix(part.pixels, tone)
    white, black = white * inside * ((v > -0.45) & (v < 0.28)), black * inside
    red = _share(part.pixels, tone, MOUTH) * inside * ((v > 0.3) & (v < 0.97))
    # Turn: how far mouth and eyes are off the middle.
    sums = [(weight.sum((1, 2)), (weight * u).sum((1, 2))) for weight in (np.maximum(white, 0), red)]
    offsets = [np.where(mass > 0.5, moment / np.maximum(mass, 1e-6), np.nan) for mass, moment in sums]
    masses = [np.where(mass > 0.5, mass, 0) for mass, _ in sums]
    total = masses[0] + masses[1]
    shift = sum(mass * np.nan_to_num(offset) for mass, offset in zip(masses, offsets, strict=True))
    shift = np.where(total > 0, shift / np.maximum(total, 1e-6), 0.0)
    turn = np.clip(shift / geometry.TURN, -1.5, 1.5)
    narrow = 1 - geometry.NARROWED * np.minimum(np.abs(turn), 1)
    across = (u - shift[:, None, None]) / narrow[:, None, None]
    # Mouth: a band of height 2 (LIP + opening OPEN sqrt(1 - w^2)) along w in -1..1.
    w = across / geometry.MOUTH_HALF
    near = red * (np.abs(w) < 1.25)
    pixel = 1 / (half_x * half_y)
    area = near.sum((1, 2)) * pixel / (geometry.MOUTH_HALF * narrow)
    mouth = np.clip((area - 4 * geometry.LIP) / (math.pi * geometry.OPEN), 0, 1.2)
    smile = _bend(near, 1 - np.minimum(w * w, 1), v) / geometry.SMILE
    # Brows: black above the pupils. Eyes: white and black around them.
    brow_zone = (
        np.clip(black, 0, 1) * ((v > -0.66) & (v < -0.19)) * (np.abs(np.abs(across) - geometry.EYE_X) < 0.36)
    )
    weight = np.maximum(brow_zone.sum((1, 2)), 1e-6)
    height = (brow_zone * v).sum((1, 2)) / weight
    raised = (geometry.BROW_Y - height) / geometry.BROW_RAISE
    outward = (np.abs(across) - geometry.EYE_X) / geometry.BROW_HALF
    tilt = _bend(brow_zone, outward, v) / geometry.BROW_TILT
    eye_zone = np.abs(np.abs(across) - geometry.EYE_X) < 1.35 * geometry.EYE_SIZE[0]
    pupils = black * ((v > -0.17) & (v < 0.14))
    eye = ((white + pupils) * eye_zone).sum((1, 2)) * pixel
    expected = 2 * math.pi * geometry.EYE_SIZE[0] * geometry.EYE_SIZE[1] * half_x / half_y
    features = np.stack([smile, raised, tilt, eye / (expected * narrow)], axis=1)
    unseen = np.isnan(heads.centre[:, 0])
    mouth, turn = np.where(unseen, np.nan, mouth), np.where(unseen, np.nan, turn)
    return mouth, turn, np.where(unseen[:, None], np.nan, np.clip(features, -2, 2))


def _bend(weight: np.ndarray, along: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Return the weighted regression's slope of `value` on `along`, [T]; 0 where nothing has weight."""
    along, value = np.broadcast_arrays(along, value, weight)[:2]
    mass = np.maximum(weight.sum((1, 2)), 1e-6)
    mean_a = ((weight * along).sum((1, 2)) / mass)[:, None, None]
    mean_v = ((weight * value).sum((1, 2)) / mass)[:, None, None]
    spread = (weight * (along - mean_a) ** 2).sum((1, 2))
    slope = (weight * (along - mean_a) * (value - mean_v)).sum((1, 2)) / np.maximum(spread, 1e-6)
    return np.where(spread > 1e-3, slope, 0.0)


def _expressions(
    part: _Part, heads: _Heads, look: Look, mouth: np.ndarray, turn: np.ndarray
) -> tuple[str, ...]:
    """Name each frame's expression: the one whose drawing is most like it."""
    names = tuple(EXPRESSIONS)
    seen = np.flatnonzero(~np.isnan(heads.centre[:, 0]))
    window = _window(part, heads.centre[seen], 1.1)
    drawings = [_soft(_draw(part, heads, seen, look, name, mouth, turn)[:, *window]) for name in names]
    actual = _soft(part.pixels[seen][:, *window])
    unlike = min(
        (_unlikeness(actual, drawings, shift) for shift in _SHIFTS), key=lambda one: one.min(0).sum()
    )
    if len(seen) > 2:  # neighbours in time look alike
        padded = np.pad(unlike, ((0, 0), (1, 1)), mode="edge")
        unlike = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    result = [NONE] * len(mouth)
    for index, best in zip(seen, unlike.argmin(0), strict=True):
        result[index] = names[best]
    return tuple(result)


_UPPER = np.radians(np.arange(-10, 141, 7.5))
_LOWER = np.radians(np.arange(-40, 186, 7.5))


def _joints(part: _Part, heads: _Heads, shirt: str, trousers: str, legs: bool, joints: np.ndarray) -> None:
    """Find the limbs' joints and write them to `joints`, x counted from the slot's left."""
    radius = part.radius
    maps = {name: _likeness(part, COLOURS[name]) for name in (shirt, trousers)}
    arms = (SHOULDER, ARM, maps[shirt], maps[trousers], _UPPER, _LOWER)
    limbs = [(6, -1, *arms), (5, 1, *arms)]
    if legs:
        upper = _UPPER[_UPPER < math.radians(65)]
        lower = _LOWER[_LOWER < math.radians(50)]
        two = (HIP, LEG, maps[trousers], maps[shirt], upper, lower)
        limbs += [(12, -1, *two), (11, 1, *two)]
    for index, side, root, length, first, second, upper, lower in limbs:
        start = heads.centre + np.asarray([side * root[0], root[1]], np.float64) * radius
        ways = [
            np.stack([side * np.sin(angle), np.cos(angle)], axis=-1) * length * radius
            for angle in (upper, lower)
        ]
        scores = _limb(np.nan_to_num(start), ways, first, second)
        best = scores.reshape(len(start), -1).argmax(1)
        a, b = np.unravel_index(best, scores.shape[1:])
        joints[:, index] = start
        joints[:, index + 2] = start + ways[0][a]
        joints[:, index + 4] = joints[:, index + 2] + ways[1][b]


def _likeness(part: _Part, colour: tuple[int, int, int]) -> np.ndarray:
    """Return how well a limb of a colour would lie at each pixel, [T, H, W]: blurred nearness of the colour."""
    near = np.clip(1.4 - _length(part.pixels - np.asarray(colour, np.float32)) / 80, 0, 1)
    near *= np.clip(_length(part.pixels - part.empty) / 40 - 0.3, 0, 1)
    reach = max(1, round(0.15 * part.radius))
    for axis in (1, 2):
        shifted = [np.roll(near, k, axis) for k in range(-reach, reach + 1)]
        near = np.sum(shifted, axis=0) / (2 * reach + 1)
    return near


def _limb(start: np.ndarray, ways: list[np.ndarray], first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Score every pair of angles in every frame, [T, A, B]: mean likeness along both parts."""
    frames, height, width = first.shape
    index = np.arange(frames)

    def look(likeness: np.ndarray, points: np.ndarray) -> np.ndarray:
        column, row = np.floor(points[..., 0]).astype(int), np.floor(points[..., 1]).astype(int)
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        frame = index.reshape(-1, *[1] * (points.ndim - 2))
        values = likeness[frame, np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
        return np.where(inside, values, 0.0)

    shares = np.asarray([0.25, 0.5, 0.75, 0.9], np.float64)
    upper = np.sum([look(first, start[:, None] + share * ways[0]) for share in shares], axis=0)
    elbow = start[:, None, None] + ways[0][:, None]
    tail = ways[1][None, None]
    parts = [look(second, elbow + share * tail) for share in (0.2, 0.4, 0.6, 0.8, 1.0)]
    lower = np.sum(parts, axis=0)
    beyond = look(second, elbow + 1.5 * tail)
    return upper[:, :, None] / 4 + lower / 5 - 0.3 * beyond


__all__ = ["SeenCharacter", "judge_stage"]
