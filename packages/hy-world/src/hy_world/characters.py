"""Characters of the procedural world: who is in the clip, and what face and body do in every frame.

A character is a puppet: a large head with large eyes, brows and mouth on a body of two colours. Its `Look` is
its identity and its `Performance` everything that moves, in numbers without a size, so that one character's
performance can be played by another. Lengths of the body are in head radii, angles in radians.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, replace

import numpy as np
from hy_core.errors import UsageError

from hy_world.attributes import COLOURS
from hy_world.scene import FPS, FRAMES
from hy_world.splits import SPLITS

SKINS: dict[str, tuple[int, int, int]] = {
    "pale": (250, 214, 180),
    "tan": (225, 155, 85),
    "brown": (140, 88, 56),
    "green": (120, 190, 90),
}
HAIRS: dict[str, tuple[int, int, int]] = {
    "black": (25, 20, 25),
    "blond": (255, 225, 60),
    "red": (200, 60, 20),
    "blue": (40, 70, 220),
}
STYLES = ("short", "long", "spiky")
FACES: dict[str, tuple[float, float]] = {  # half width, half height of the head in head radii
    "round": (0.95, 1.00),
    "long": (0.75, 1.12),
    "square": (1.00, 0.93),
}
PLACES = ("gray", "sky", "sunset", "checkerboard")  # backgrounds that are like no part of a character
EXPRESSIONS: dict[str, tuple[float, float, float, float]] = {  # smile, brow raise, brow tilt, eye opening
    "neutral": (0.0, 0.0, 0.0, 1.0),
    "happy": (1.0, 0.3, 0.0, 0.7),
    "sad": (-1.0, 0.1, 0.9, 0.75),
    "angry": (-0.5, -0.6, -0.9, 0.9),
    "surprised": (0.0, 1.0, 0.0, 1.45),
}
ACTIONS = ("stand", "wave", "raise", "march", "squat", "jump", "dance")
FRAMINGS: dict[str, tuple[float, float]] = {  # height of the head's centre, head radius; of the shorter side
    "face": (0.47, 0.30),
    "upper": (0.29, 0.19),
    "full": (0.215, 0.155),
}
BODY_HEIGHT = 5.6  # crown to ankle, in head radii
_ONE_IN = 10


@dataclass(frozen=True)
class Look:
    """Identity: colours and shapes, names from the tables above."""

    skin: str
    hair: str
    style: str
    face: str
    shirt: str  # torso, upper arms and shins
    trousers: str  # thighs and forearms


@dataclass(frozen=True, eq=False)
class Performance:
    """What a character does. Left and right are the character's own, who faces the camera."""

    action: str
    expressions: tuple[str, ...]  # [T]; the nearest class while one changes into another
    features: np.ndarray  # [T, 4]: smile, brow raise, brow tilt, eye opening, as in EXPRESSIONS
    mouth: np.ndarray  # [T]: opening, 0 shut to 1
    turn: np.ndarray  # [T]: head turn, -1 to the picture's left, 1 to its right
    root: np.ndarray  # [T, 2]: way of the whole body from its place, in head radii, y down
    limbs: np.ndarray  # [T, 8]: outward from straight down: right upper arm, forearm, left ..., thighs, shins

    def __len__(self) -> int:
        return len(self.mouth)

    def with_face(self, other: Performance) -> Performance:
        """Return this body with the face of another: mouth, expression and head turn."""
        if len(other) != len(self):
            raise UsageError(f"a face of {len(other)} frames can't play on a body of {len(self)}")
        return replace(
            self,
            expressions=other.expressions,
            features=other.features,
            mouth=other.mouth,
            turn=other.turn,
        )


@dataclass(frozen=True, eq=False)
class Character:
    """One person of a scene."""

    look: Look
    performance: Performance


@dataclass(frozen=True, eq=False)
class Stage:
    """A clip of one or more characters side by side, each in a slot of its own."""

    background: str
    characters: tuple[Character, ...]
    framing: str
    fps: float = FPS

    @property
    def frames(self) -> int:
        return len(self.characters[0].performance)


def is_heldout(look: Look, expression: str, action: str) -> bool:
    """Say whether a combination is kept for the test: one in ten, by a hash, the same everywhere."""
    parts = (look.skin, look.hair, look.style, look.face, look.shirt, expression, action)
    return zlib.crc32(" ".join(parts).encode()) % _ONE_IN == 0


def sample_stage(
    rng: np.random.Generator,
    split: str = "train",
    frames: int = FRAMES,
    framing: str | None = None,
    people: int = 1,
    mouth: np.ndarray | None = None,
    changing: bool = False,
    fps: float = FPS,
) -> Stage:
    """Draw a clip of characters of the split ("train", "heldout" or "all").

    `mouth` [people, T] or [T] drives the mouths (`characters_speech.opening`); without it they babble. A face
    wears one expression, or two in turn if `changing`. Characters of one stage differ in shirt and hair.
    """
    if split not in SPLITS:
        raise UsageError(f"no split {split!r}", f"one of {', '.join(SPLITS)}")
    if framing is not None and framing not in FRAMINGS:
        raise UsageError(f"no framing {framing!r}", f"one of {', '.join(FRAMINGS)}")
    framing = framing or _pick(rng, tuple(FRAMINGS))
    driven = None if mouth is None else np.atleast_2d(mouth)
    if driven is not None and driven.shape != (people, frames):
        raise UsageError(f"mouth has shape {driven.shape}", f"it takes {people} x {frames} openings")
    cast: list[Character] = []
    while len(cast) < people:
        look = _look(rng)
        action = "stand" if framing == "face" else _pick(rng, ACTIONS)
        expression = _pick(rng, tuple(EXPRESSIONS))
        if split != "all" and is_heldout(look, expression, action) != (split == "heldout"):
            continue
        if any(look.shirt == one.look.shirt or look.hair == one.look.hair for one in cast):
            continue
        then = _pick(rng, tuple(EXPRESSIONS)) if changing else expression
        openings = driven[len(cast)] if driven is not None else None
        cast.append(Character(look, perform(rng, frames, action, (expression, then), openings, fps)))
    return Stage(_pick(rng, PLACES), tuple(cast), framing, fps)


def _pick(rng: np.random.Generator, choices: tuple[str, ...]) -> str:
    return choices[rng.integers(len(choices))]


def _look(rng: np.random.Generator) -> Look:
    colours = tuple(COLOURS)
    shirt, trousers = (colours[i] for i in rng.permutation(len(colours))[:2])
    skin, hair = _pick(rng, tuple(SKINS)), _pick(rng, tuple(HAIRS))
    return Look(skin, hair, _pick(rng, STYLES), _pick(rng, tuple(FACES)), shirt, trousers)


def perform(
    rng: np.random.Generator,
    frames: int,
    action: str = "stand",
    expressions: tuple[str, str] = ("neutral", "neutral"),
    mouth: np.ndarray | None = None,
    fps: float = FPS,
) -> Performance:
    """Draw a performance: an action, an expression that becomes another midway, a mouth, a turning head.

    `mouth` is [frames], 0 (closed) to 1 (open).
    """
    if action not in ACTIONS:
        raise UsageError(f"no action {action!r}", f"one of {', '.join(ACTIONS)}")
    time = np.arange(frames) / fps
    if mouth is None:
        from hy_world.characters_speech import babble

        mouth = babble(rng, frames, fps)
    first, last = (np.asarray(EXPRESSIONS[name], np.float64) for name in expressions)
    neutral = np.asarray(EXPRESSIONS["neutral"], np.float64)
    first, last = (neutral + rng.uniform(0.85, 1.0) * (face - neutral) for face in (first, last))
    if expressions[0] == expressions[1]:
        last = first
    middle = rng.uniform(0.35, 0.65) * max(frames - 1, 1)
    share = np.clip((np.arange(frames) - middle) / max(fps * 0.4, 1) + 0.5, 0, 1)[:, None]
    names = tuple(expressions[int(part > 0.5)] for part in share[:, 0])
    limbs, hop = _limbs(rng, action, time)
    root = np.stack([_wander(rng, time, 0.1), _wander(rng, time, 0.04) + hop], axis=1)
    return Performance(
        action,
        names,
        first + share * (last - first),
        np.clip(np.asarray(mouth, np.float64), 0, 1),
        np.clip(rng.uniform(-0.5, 0.5) + _wander(rng, time, rng.uniform(0, 0.5)), -1, 1),
        root,
        limbs,
    )


def _wander(rng: np.random.Generator, time: np.ndarray, amount: float) -> np.ndarray:
    """Return a slow, smooth path around 0, within `amount`, [T]."""
    rates, phases = rng.uniform(0.1, 0.45, 2), rng.uniform(0, 2 * math.pi, 2)
    return amount * np.sin(2 * math.pi * time[:, None] * rates + phases).mean(1)


# Resting angles: arms beside the body, legs straight.
_REST = np.radians([14, 14, 14, 14, 2, 0, 2, 0])
_LIMIT = np.radians([[5, 5, 5, 5, -5, -35, -5, -35], [132, 172, 132, 172, 55, 40, 55, 40]])


def _limbs(rng: np.random.Generator, action: str, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the limbs' angles [T, 8], and how far the whole body is down in head radii [T]."""
    rate, phase = rng.uniform(0.25, 0.45), rng.uniform(0, 1)
    swing = 0.5 - 0.5 * np.cos(2 * math.pi * (rate * time + phase))  # 0..1
    other = 1 - swing
    limbs = np.tile(_REST, (len(time), 1))
    down = np.zeros(len(time))
    if action == "wave":
        side = 2 * int(rng.integers(2))
        limbs[:, side] = np.radians(rng.uniform(95, 120))
        limbs[:, side + 1] = np.radians(105 + 65 * swing)
    elif action == "raise":
        for arm in (0, 2):
            limbs[:, arm] = limbs[:, arm + 1] = np.radians(14 + 116 * swing)
    elif action == "march":
        for arm, leg, lift in ((0, 4, swing), (2, 6, other)):
            limbs[:, arm], limbs[:, arm + 1] = np.radians(20 + 20 * lift), np.radians(20 + 100 * lift)
            limbs[:, leg], limbs[:, leg + 1] = np.radians(2 + 48 * lift), np.radians(-25 * lift)
    elif action == "squat":
        for arm, leg in ((0, 4), (2, 6)):
            limbs[:, arm] = limbs[:, arm + 1] = np.radians(14 + 70 * swing)
            limbs[:, leg], limbs[:, leg + 1] = np.radians(2 + 48 * swing), np.radians(-25 * swing)
        legs = LEG * (np.cos(limbs[:, 4:6]).sum(1))
        down = 2 * LEG - legs
    elif action == "jump":
        for arm, leg in ((0, 4), (2, 6)):
            limbs[:, arm] = limbs[:, arm + 1] = np.radians(14 + 110 * swing)
            limbs[:, leg] = limbs[:, leg + 1] = np.radians(2 + 20 * swing)
        down = -0.3 * np.sin(math.pi * swing)
    elif action == "dance":
        rates, phases = rng.uniform(0.25, 0.6, 8), rng.uniform(0, 2 * math.pi, 8)
        wave = np.sin(2 * math.pi * time[:, None] * rates + phases)
        limbs = np.radians([65, 85, 65, 85, 18, 0, 18, 0]) + wave * np.radians(
            [50, 70, 50, 70, 20, 18, 20, 18]
        )
        bend = np.radians(75)
        for arm in (0, 2):  # no elbow bends backwards
            limbs[:, arm + 1] = np.clip(limbs[:, arm + 1], limbs[:, arm] - 0.3, limbs[:, arm] + bend)
    return np.clip(limbs, *_LIMIT), down


# The body, in head radii from the centre of the head, y down; the same for all.
SHOULDER = (0.72, 1.3)
ARM = 0.85  # upper arm and forearm each
HIP = (0.42, 2.6)
LEG = 1.0  # thigh and shin each
