"""Tell from the pixels alone what a clip of the world shows.

No learned part: the background is the nearest template; a thing's colour is the one that, mixed with the
background, explains the other pixels best, and the share of that mix is the thing's coverage of each pixel.
Centre and radius follow from coverage; angle from the angular moment of the shape's symmetry; the shape is
the candidate that, drawn there, fits best; the motion is the strongest trend, each measured against the
weakest that the world makes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from hy_world.attributes import BACKGROUNDS, COLOURS, SHAPES
from hy_world.render import backdrop, coverage
from hy_world.scene import EXTENT, GROW, HOP, MOVE, TURN, Scene

NONE = "none"  # the attribute of a thing that isn't there

_PALETTE = np.asarray(list(COLOURS.values()), np.float32)
_FOREGROUND = 40.0  # least distance of a thing's pixel from the background, of 255 * sqrt(3)
_UNLIKE = 75.0  # a pixel this far from all mixes of a colour and the background isn't of that colour
_PIXELS = 1500  # as many are enough to tell the colours
_SIZE_LIMIT = 9.75 / 64  # between the largest small and the smallest large radius, by ratio
_WEAKEST = {"move": MOVE[0], "hop": HOP[0], "scale": math.log(GROW[0]), "turn": TURN[0]}
_FITS = 0.7  # least overlap to call a blob a shape; codecs at 28 dB keep more than 0.85
_ANSWER = 0.5  # of the weakest motion: below it a thing is still
_SYMMETRY = {"square": 4, "triangle": 3, "star": 5}


def _area(shape: str) -> float:
    """Return the area of a shape of radius 1, measured on a fine drawing of it."""
    span = np.arange(-140, 141, dtype=np.float32)
    return float(
        coverage(shape, span, span[:, None], np.asarray(100, np.float32), np.asarray(0, np.float32)).sum()
        / 1e4
    )


_AREA = {shape: _area(shape) for shape in SHAPES}


@dataclass(frozen=True)
class Seen:
    """One thing as the judge sees it; paths are in pixels and NaN where it isn't in the frame."""

    colour: str
    shape: str
    size: str
    motion: str
    x: np.ndarray  # [T]
    y: np.ndarray  # [T]
    radius: np.ndarray  # [T]


@dataclass(frozen=True)
class Verdict:
    """What the judge sees in a clip."""

    background: str
    things: tuple[Seen, ...]
    stray: float  # share of the pixels unlike the background that no thing's colour explains


def judge(video: np.ndarray, objects: int = 1) -> Verdict:
    """Describe a clip, uint8 [T, H, W, 3], that should show `objects` things (1 or 2)."""
    pixels = video.astype(np.float32)
    name, empty = _background(pixels)
    difference = pixels - empty
    colours, stray = _colours(difference, empty, objects)
    shares = _shares(difference, empty, colours)
    things = [_thing(colour, share) for colour, share in zip(colours, shares, strict=True)]
    missing = np.full(len(video), np.nan)
    while len(things) < objects:
        things.append(Seen(NONE, NONE, NONE, NONE, missing, missing, missing))
    return Verdict(name, tuple(things), stray)


def position_errors(verdict: Verdict, scene: Scene, height: int, width: int) -> np.ndarray:
    """Return how far each thing is seen from where it is, in pixels, [things, T]; NaN if unseen.

    Verdict and scene must have their things in one order: see `hy_world.score.match`.
    """
    frames = len(verdict.things[0].x)
    tracks = scene.tracks(frames, height, width)
    return np.stack(
        [np.hypot(seen.x - t.x, seen.y - t.y) for seen, t in zip(verdict.things, tracks, strict=True)]
    )


def _background(pixels: np.ndarray) -> tuple[str, np.ndarray]:
    """Return the nearest background's name and its picture, shifted to the clip's own level, [H, W, 3]."""
    height, width = pixels.shape[1:3]
    some = pixels[np.unique(np.linspace(0, len(pixels) - 1, 3).astype(int))]
    # A thing covers less than half of the frame, so that the cut distance lets the background decide.
    distance = {
        name: np.minimum(_length(some - backdrop(name, height, width)), 70.0).mean() for name in BACKGROUNDS
    }
    name = min(distance, key=distance.__getitem__)
    template = backdrop(name, height, width)
    shift = np.median((some - template).reshape(-1, 3), axis=0)
    return name, template + np.clip(shift, -20, 20)


def _length(colour: np.ndarray) -> np.ndarray:
    return np.sqrt(np.einsum("...c,...c", colour, colour))


def _colours(difference: np.ndarray, empty: np.ndarray, count: int) -> tuple[list[str], float]:
    """Return the `count` colours that best explain what isn't background, and the share that they don't.

    No colours if there is nothing but background.
    """
    frame, row, column = np.nonzero(_length(difference) > _FOREGROUND)
    if len(frame) < 4 * len(difference):
        return [], 0.0
    step = max(1, len(frame) // _PIXELS)
    frame, row, column = frame[::step], row[::step], column[::step]
    pixels = difference[frame, row, column]
    towards = _PALETTE[:, None] - empty[row, column]  # [8, N, 3]
    share = np.einsum("nc,knc->kn", pixels, towards) / np.einsum("knc,knc->kn", towards, towards)
    left = pixels - np.clip(share, 0, 1)[..., None] * towards
    cost = np.minimum(np.einsum("knc,knc->kn", left, left), _UNLIKE**2)
    best = min(combinations(range(len(_PALETTE)), count), key=lambda chosen: cost[list(chosen)].min(0).sum())
    stray = (cost[list(best)].min(0) >= _UNLIKE**2).mean()
    return [list(COLOURS)[index] for index in best], float(stray)


def _shares(difference: np.ndarray, empty: np.ndarray, colours: list[str]) -> list[np.ndarray]:
    """Return how much of each pixel each colour covers, [T, H, W] in 0..1."""
    shares, costs = [], []
    for colour in colours:
        towards = np.asarray(COLOURS[colour], np.float32) - empty
        share = np.einsum("thwc,hwc->thw", difference, towards / (towards * towards).sum(-1, keepdims=True))
        share = np.clip(share, 0, 1)
        shares.append(share)
        if len(colours) > 1:
            costs.append(_length(difference - share[..., None] * towards))
    if costs:
        nearest = np.argmin(costs, axis=0)
        shares = [np.where(nearest == index, share, 0) for index, share in enumerate(shares)]
    # Steeper edges: noise of the background counts for nothing, and blur changes no area.
    return [np.clip(2 * share - 0.5, 0, 1) for share in shares]


def _thing(colour: str, share: np.ndarray) -> Seen:
    """Measure one thing from its coverage [T, H, W]."""
    frames, height, width = share.shape
    unit = min(height, width)
    rows, columns = np.arange(height) + 0.5, np.arange(width) + 0.5
    area = share.sum((1, 2))
    there = area > (2 / 64 * unit) ** 2
    if not there.any():
        missing = np.full(frames, np.nan)
        return Seen(colour, NONE, NONE, NONE, missing, missing, missing)
    mass = np.where(there, area, np.nan)
    x, y = share.sum(1) @ columns / mass, share.sum(2) @ rows / mass
    time = np.flatnonzero(there)
    windows, dx, dy = _windows(share[time], x[time], y[time], area[time].max())
    moments = {n: _moment(windows, dx, dy, n) for n in _SYMMETRY.values()}
    progress = time / max(frames - 1, 1)
    turns = {shape: _turn(moments[n], progress, n) for shape, n in _SYMMETRY.items()}
    fits = {}
    for candidate in SHAPES:
        turn, start = turns.get(candidate, (0.0, 0.0))
        radius = np.sqrt(area[time] / _AREA[candidate])
        fits[candidate] = _fit(windows, dx, dy, candidate, radius, start + turn * progress)
    shape = max(fits, key=fits.__getitem__)
    radius = np.sqrt(mass / _AREA[shape])
    named = shape if fits[shape] >= _FITS else NONE
    first, last = _ends(progress, radius[time])
    turn = turns.get(shape, (0.0, 0.0))[0]
    motion = _motion(progress, x[time] / unit, y[time] / unit, last / first, turn) if frames > 1 else "still"
    return Seen(colour, named, "small" if first < _SIZE_LIMIT * unit else "large", motion, x, y, radius)


def _windows(
    share: np.ndarray, x: np.ndarray, y: np.ndarray, area: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut out a window around the thing, [T, P, P]; and its pixels' offsets [T, 1, P], [T, P, 1]."""
    reach = math.ceil(math.sqrt(area / _AREA["triangle"]) * EXTENT["triangle"]) + 2
    padded = np.pad(share, ((0, 0), (reach, reach + 1), (reach, reach + 1)))
    left, top = np.floor(x).astype(int) - reach, np.floor(y).astype(int) - reach
    span = np.arange(2 * reach + 1)
    rows, columns = (top + reach)[:, None] + span, (left + reach)[:, None] + span
    windows = padded[np.arange(len(share))[:, None, None], rows[:, :, None], columns[:, None, :]]
    dx = np.asarray(left[:, None] + span + 0.5 - x[:, None], np.float32)[:, None, :]
    dy = np.asarray(top[:, None] + span + 0.5 - y[:, None], np.float32)[:, :, None]
    return windows.astype(np.float32), dx, dy


def _moment(windows: np.ndarray, dx: np.ndarray, dy: np.ndarray, n: int) -> np.ndarray:
    """Return the angular moment of order n >= 3, [T] complex; its phase is n times the shape's angle."""
    place = dx + 1j * dy
    power = place * place * place
    for _ in range(n - 3):
        power = power * place
    whole = np.einsum("tij,tij->t", windows, np.abs(power))
    return np.einsum("tij,tij->t", windows, power) / np.maximum(whole, 1e-9)


def _turn(moment: np.ndarray, progress: np.ndarray, n: int) -> tuple[float, float]:
    """Return the turn over the clip and the first angle (0 is upright) that suit all moments best."""
    upright = np.exp(-1j * n * (math.pi / 4 if n == 4 else -math.pi / 2))
    limit = math.radians(320)
    tries = np.linspace(-limit, limit, 161) if len(progress) > 1 else np.zeros(1)
    sums = np.exp(-1j * n * tries[:, None] * progress) @ moment
    best = int(np.argmax(np.abs(sums)))
    return float(tries[best]), float(np.angle(sums[best] * upright) / n)


def _fit(
    windows: np.ndarray, dx: np.ndarray, dy: np.ndarray, shape: str, radius: np.ndarray, angle: np.ndarray
) -> float:
    """Return intersection over union of the coverage and the shape drawn there, over all frames."""
    drawn = coverage(
        shape,
        dx,
        dy,
        np.asarray(radius, np.float32)[:, None, None],
        np.asarray(angle, np.float32)[:, None, None],
    )
    return float(np.minimum(drawn, windows).sum() / np.maximum(drawn, windows).sum())


def _ends(progress: np.ndarray, value: np.ndarray) -> tuple[float, float]:
    """Return a value at the first and at the last frame by a straight line through all."""
    if len(progress) < 2:
        return float(value[0]), float(value[0])
    slope, start = np.polyfit(progress, value, 1)
    least = 0.1 * value.max()
    return max(float(start), least), max(float(start + slope), least)


def _motion(progress: np.ndarray, x: np.ndarray, y: np.ndarray, scale: float, turn: float) -> str:
    """Name the strongest motion, each in units of the weakest that the world makes."""
    if len(progress) < 2:
        return "still"
    across, down = np.polyfit(progress, x, 1)[0], np.polyfit(progress, y, 1)[0]
    wave = y - down * progress
    strength = {
        "right": across / _WEAKEST["move"],
        "left": -across / _WEAKEST["move"],
        "down": down / _WEAKEST["move"],
        "up": -down / _WEAKEST["move"],
        "bounce": np.ptp(wave) / _WEAKEST["hop"] if _reversals(wave) >= 2 else 0.0,
        "spin": abs(turn) / _WEAKEST["turn"],
        "grow": math.log(scale) / _WEAKEST["scale"],
        "shrink": -math.log(scale) / _WEAKEST["scale"],
    }
    best = max(strength, key=strength.__getitem__)
    return best if strength[best] >= _ANSWER else "still"


def _reversals(path: np.ndarray) -> int:
    """Count the changes of direction that lead at least a third of the way back."""
    enough = np.ptp(path) / 3
    count, low, high, direction = 0, path[0], path[0], 0
    for value in path[1:]:
        low, high = min(low, value), max(high, value)
        if direction >= 0 and value < high - enough:
            count, direction, low, high = count + (direction > 0), -1, value, value
        elif direction <= 0 and value > low + enough:
            count, direction, low, high = count + (direction < 0), 1, value, value
    return count
