"""A scene of the procedural world: what is in the clip and where it is at every moment.

Lengths are in units of the frame's shorter side, positions are measured from the top left corner (x to the
right, y down), angles are in radians and clockwise as seen on the screen. A scene therefore has no resolution
of its own, only a shape (`Scene.width` by `Scene.height`, the shorter of which is 1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from hy_core.errors import UsageError

from hy_world.attributes import BACKGROUNDS, SIZES
from hy_world.splits import combinations

FRAMES, FPS = 17, 8.0

# Distance from the centre to the farthest point, per unit of radius: shapes of one radius look about equally
# large.
EXTENT = {"circle": 1.0, "square": 1.22, "triangle": 1.35, "star": 1.42}
_EDGE = 1.5 / 64  # smallest gap between a thing and the edge of the frame
# How strong a motion is over a clip, from the weakest to the strongest.
MOVE = (17 / 64, 26 / 64)  # length of a move
HOP = (13 / 64, 19 / 64)  # height of a bounce
GROW = (1.6, 1.7)  # last radius / first radius, or the other way round
# Four frames of it are far from half of any shape's symmetry (36 degrees for a star), where the codec's latent frame
# couldn't tell which way it went.
TURN = (math.radians(60), math.radians(66))


@dataclass(frozen=True)
class Thing:
    """One object: its attributes and the motion that makes them true."""

    colour: str
    shape: str
    size: str  # of the first frame, also when it grows or shrinks
    motion: str
    x: float  # centre at the first frame
    y: float
    radius: float  # at the first frame
    move: tuple[float, float] = (0.0, 0.0)  # way of the centre over the clip
    scale: float = 1.0  # last radius / first radius
    turn: float = 0.0  # angle over the clip
    hop: float = 0.0  # fall height of a bounce; the thing starts at the top
    hops: int = 0  # impacts over the clip

    def at(self, progress: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return centre x, centre y, radius, angle at each moment (0 first frame, 1 last), each [T]."""
        fall = self.hop * (1 - np.abs(np.cos(math.pi * self.hops * progress)))
        x = self.x + self.move[0] * progress
        y = self.y + self.move[1] * progress + fall
        return x, y, self.radius * (1 + (self.scale - 1) * progress), self.turn * progress


@dataclass(frozen=True)
class Track:
    """Where one thing is in each frame of a clip, in pixels."""

    x: np.ndarray  # [T]; the centre of the top left pixel is at 0.5
    y: np.ndarray  # [T]
    radius: np.ndarray  # [T]
    angle: np.ndarray  # [T], radians, clockwise
    impacts: tuple[float, ...]  # when it hits the floor, in frames: 3.5 is halfway between 3 and 4


@dataclass(frozen=True)
class Scene:
    """Everything that is true of a clip."""

    background: str
    things: tuple[Thing, ...]
    width: float = 1.0
    height: float = 1.0

    def tracks(self, frames: int = FRAMES, height: int = 64, width: int = 64) -> tuple[Track, ...]:
        """Return each thing's way through a clip of `frames` frames of `height` x `width` pixels."""
        unit = self.unit(height, width)
        progress = np.arange(frames) / max(frames - 1, 1)
        tracks = []
        for thing in self.things:
            x, y, radius, angle = thing.at(progress)
            hops = thing.hops if frames > 1 else 0
            hits = tuple((i + 0.5) / hops * (frames - 1) for i in range(hops))
            tracks.append(Track(x * unit, y * unit, radius * unit, angle, hits))
        return tuple(tracks)

    def unit(self, height: int, width: int) -> int:
        """Return the pixels per unit of length; raise `UsageError` when the frame has another shape."""
        unit = min(height, width)
        if abs(width - self.width * unit) > 1 or abs(height - self.height * unit) > 1:
            shape = f"{self.width * unit:.0f}x{self.height * unit:.0f}"
            raise UsageError(
                f"a scene for {shape} can't be drawn as {width}x{height}", "sample it at that size"
            )
        return unit


def sample_scene(
    rng: np.random.Generator,
    split: str = "train",
    frames: int = FRAMES,
    height: int = 64,
    width: int = 64,
    objects: int | None = None,
    oversample: Mapping[str, int] | None = None,
) -> Scene:
    """Draw a scene of the split ("train", "heldout" or "all").

    `objects` is 1 or 2; None draws two in a quarter of the scenes. With `frames` = 1 everything is still, for
    a picture shows no motion. Two things differ in colour and keep apart. Every thing of a held-out scene is
    a held-out combination, no thing of a training scene is. `oversample` says how many times as often as others
    things of a colour, shape or motion are drawn: {"star": 2}.
    """
    unit = min(height, width)
    frame = (width / unit, height / unit)
    still = frames == 1
    count = objects or (2 if rng.random() < 0.25 else 1)
    while True:
        background = BACKGROUNDS[rng.integers(len(BACKGROUNDS))]
        choices = combinations(split, background, still)
        if oversample:
            choices = tuple(
                one for one in choices for _ in range(math.prod(oversample.get(name, 1) for name in one))
            )
        picked = [choices[rng.integers(len(choices))] for _ in range(count)]
        if len({colour for colour, _, _ in picked}) < count:
            continue
        sizes = [tuple(SIZES)[rng.integers(len(SIZES))] for _ in picked]
        for _ in range(1 if count == 1 else 12):
            things = tuple(_place(rng, *kind, size, frame) for kind, size in zip(picked, sizes, strict=True))
            if count == 1 or _apart(*things):
                return Scene(background, things, *frame)


def _place(
    rng: np.random.Generator, colour: str, shape: str, motion: str, size: str, frame: tuple[float, float]
) -> Thing:
    """Draw the numbers of a motion so that the thing stays in the frame."""
    radius = rng.uniform(*SIZES[size])
    move, scale, turn, hop, hops = (0.0, 0.0), 1.0, 0.0, 0.0, 0
    if motion in ("grow", "shrink"):
        scale = rng.uniform(*GROW)
        scale = scale if motion == "grow" else 1 / scale
    margin = radius * EXTENT[shape] * max(scale, 1) + _EDGE
    free = (frame[0] - 2 * margin, frame[1] - 2 * margin)
    if motion in ("right", "left"):
        way = rng.uniform(MOVE[0], min(MOVE[1], free[0]))
        move = (way if motion == "right" else -way, 0.0)
    elif motion in ("up", "down"):
        way = rng.uniform(MOVE[0], min(MOVE[1], free[1]))
        move = (0.0, way if motion == "down" else -way)
    elif motion == "bounce":
        hop, hops = rng.uniform(HOP[0], min(HOP[1], free[1])), 2
    elif motion == "spin":
        turn = rng.uniform(*TURN)
    x = rng.uniform(margin + max(-move[0], 0), frame[0] - margin - max(move[0], 0))
    y = rng.uniform(margin + max(-move[1], 0), frame[1] - margin - max(move[1], 0) - hop)
    return Thing(colour, shape, size, motion, x, y, radius, move, scale, turn, hop, hops)


def _apart(one: Thing, other: Thing) -> bool:
    progress = np.linspace(0, 1, FRAMES)
    x, y, radius, _ = one.at(progress)
    u, v, reach, _ = other.at(progress)
    gap = np.hypot(x - u, y - v) - radius * EXTENT[one.shape] - reach * EXTENT[other.shape]
    return bool(gap.min() > 1 / 64)
