"""Where everything of a character is, in pixels: the truth that a detector or a generator is held against."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from hy_core.errors import UsageError

from hy_world.characters import (
    ARM,
    BODY_HEIGHT,
    FACES,
    FRAMINGS,
    HIP,
    LEG,
    SHOULDER,
    Character,
    Performance,
    Stage,
)

# Of the face, in half widths (x) and half heights (y) of the head, from its centre.
EYE_X, EYE_Y = 0.42, -0.02
EYE_SIZE = (0.22, 0.24)  # half axes, both in half widths
PUPIL = 0.10
BROW_Y, BROW_RAISE, BROW_TILT, BROW_HALF = -0.42, 0.14, 0.16, 0.24
NOSE_Y = 0.24
MOUTH_Y, MOUTH_HALF, SMILE, LIP, OPEN = 0.58, 0.42, 0.20, 0.05, 0.24
TURN = 0.28  # way of the features of a head turned by 1
NARROWED = 0.15  # how much narrower the features of a head turned by 1 are
FRINGE = -0.70  # where the hair ends on the forehead

BODY_JOINTS = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee",
    "left_ankle", "right_ankle",
)  # fmt: skip


@dataclass(frozen=True)
class Slot:
    """The part of the frame that is one character's: pixel columns, and the unit of length in pixels."""

    left: int
    right: int
    height: int
    unit: float

    @property
    def middle(self) -> float:
        return (self.left + self.right) / 2


def slots(people: int, height: int, width: int) -> tuple[Slot, ...]:
    """Divide a frame among the characters, from left to right; `UsageError` when it is too small."""
    edges = np.linspace(0, width, people + 1).round().astype(int)
    unit = min(height, width // people)
    if unit < 16:
        raise UsageError(f"{width}x{height} is too small for {people} characters", "16 pixels each at least")
    return tuple(Slot(int(a), int(b), height, unit) for a, b in zip(edges[:-1], edges[1:], strict=True))


@dataclass(frozen=True)
class Truth:
    """One character in every frame, in pixels of the whole frame; the top left pixel's centre is at 0.5."""

    mouth: np.ndarray  # [T], 0..1
    expressions: tuple[str, ...]  # [T]
    turn: np.ndarray  # [T], -1..1
    joints: np.ndarray  # [T, 17, 2], order of COCO (`BODY_JOINTS`)
    visible: np.ndarray  # [T, 17] bool: inside the frame
    landmarks: np.ndarray  # [T, 68, 2], order of iBUG 68: jaw, brows, nose, eyes, mouth
    face: np.ndarray  # [T, 4]: left, top, right, bottom of the head without hair
    lips: np.ndarray  # [T, 4]: box of the mouth at its widest opening
    body_height: float  # crown to ankle, but no more than the frame


@dataclass(frozen=True)
class Pose:
    """Numbers to draw a character from, in pixels."""

    radius: float  # head radius
    centre: np.ndarray  # [T, 2] of the head
    half: tuple[float, float]  # half width and half height of the head
    shift: np.ndarray  # [T] of the features by the head's turn
    narrow: np.ndarray  # [T] factor of their width
    limbs: np.ndarray  # [T, 4, 3, 2]: right arm, left arm, right leg, left leg; root, joint, end


def _scaled(half: tuple[float, float], radius: float) -> tuple[float, float]:
    return half[0] * radius, half[1] * radius


def pose(character: Character, framing: str, slot: Slot) -> Pose:
    """Lay a character out in its slot."""
    performance = character.performance
    level, size = FRAMINGS[framing]
    radius = size * slot.unit
    rest = np.asarray([slot.middle, level * slot.unit + (slot.height - slot.unit) / 2], np.float64)
    centre = rest + performance.root * radius
    return lay(performance, centre, radius, _scaled(FACES[character.look.face], radius))


def lay(performance: Performance, centre: np.ndarray, radius: float, half: tuple[float, float]) -> Pose:
    """Lay a performance out around heads at `centre` [T, 2] with these half axes, all in pixels."""
    angles = performance.limbs.reshape(-1, 4, 2)
    side = np.asarray([-1, 1, -1, 1], np.float64)  # the right side is on the picture's left
    roots = np.asarray([(-SHOULDER[0], SHOULDER[1]), SHOULDER, (-HIP[0], HIP[1]), HIP], np.float64)
    length = np.asarray([ARM, ARM, LEG, LEG], np.float64)
    # Angles run outward from straight down.
    step = np.stack([side[:, None] * np.sin(angles), np.cos(angles)], axis=-1) * length[:, None, None]
    root = np.broadcast_to(roots, (len(angles), 4, 2))
    joint = root + step[:, :, 0]
    limbs = centre[:, None, None] + radius * np.stack([root, joint, joint + step[:, :, 1]], axis=2)
    turn = performance.turn
    return Pose(radius, centre, half, TURN * half[0] * turn, 1 - NARROWED * np.abs(turn), limbs)


def truth(stage: Stage, height: int = 64, width: int = 64) -> tuple[Truth, ...]:
    """Return each character's truth for frames of `height` x `width` pixels."""
    places = slots(len(stage.characters), height, width)
    return tuple(
        _truth(one, pose(one, stage.framing, slot), slot, height, width)
        for one, slot in zip(stage.characters, places, strict=True)
    )


def _truth(character: Character, laid: Pose, slot: Slot, height: int, width: int) -> Truth:
    performance = character.performance
    points = landmarks(character, laid)
    joints = np.empty((len(performance), 17, 2))
    joints[:, 0] = points[:, 30]
    joints[:, 1], joints[:, 2] = points[:, 42:48].mean(1), points[:, 36:42].mean(1)
    ear = np.asarray([laid.half[0], 0], np.float64)
    joints[:, 3], joints[:, 4] = laid.centre + ear, laid.centre - ear
    for first, (right, left) in ((5, (0, 1)), (11, (2, 3))):
        for part in range(3):
            joints[:, first + 2 * part] = laid.limbs[:, left, part]
            joints[:, first + 2 * part + 1] = laid.limbs[:, right, part]
    inside = (joints >= 0).all(-1) & (joints[..., 0] < width) & (joints[..., 1] < height)
    half = np.asarray(laid.half, np.float64)
    lips = mouth_centre(laid)
    reach = np.asarray([MOUTH_HALF * half[0], (SMILE + LIP + OPEN) * half[1]], np.float64)
    return Truth(
        performance.mouth,
        performance.expressions,
        performance.turn,
        joints,
        inside,
        points,
        np.concatenate([laid.centre - half, laid.centre + half], axis=1),
        np.concatenate([lips - reach, lips + reach], axis=1),
        min(BODY_HEIGHT * laid.radius, float(height)),
    )


def mouth_centre(laid: Pose) -> np.ndarray:
    """Return the middle of the mouth, [T, 2]."""
    return laid.centre + np.stack([laid.shift, np.full_like(laid.shift, MOUTH_Y * laid.half[1])], axis=1)


def landmarks(character: Character, laid: Pose) -> np.ndarray:
    """Return the 68 points of the face in iBUG order, [T, 68, 2] pixels."""
    performance = character.performance
    smile, raised, tilt, eyes = performance.features.T[..., None]
    half_x, half_y = laid.half
    shift, narrow = laid.shift[:, None], laid.narrow[:, None]
    frames = len(performance)

    def place(x: np.ndarray, y: np.ndarray, turning: float = 1.0) -> np.ndarray:
        x, y = np.broadcast_arrays(turning * shift + narrow * half_x * x, half_y * y)
        return laid.centre[:, None] + np.stack([x, y], axis=-1)

    # Jaw: from the picture's left ear over the chin to its right ear; it doesn't turn with the features.
    angle = math.pi - np.linspace(0, math.pi, 17)
    jaw = laid.centre[:, None] + np.stack([half_x * np.cos(angle), half_y * np.sin(angle)], axis=-1)
    along = np.linspace(-1, 1, 5)
    brows = []
    for side in (-1, 1):
        outward = along * side  # -1 inner end, 1 outer end
        y = BROW_Y - BROW_RAISE * raised + BROW_TILT * tilt * outward
        brows.append(place(side * EYE_X + BROW_HALF * along, y))
    nose = [
        place(np.zeros(4), np.linspace(0.0, NOSE_Y, 4), 1.3),
        place(np.linspace(-0.1, 0.1, 5), np.full(5, NOSE_Y + 0.08), 1.3),
    ]
    lids = []
    for side in (-1, 1):
        around = np.radians([180, 240, 300, 0, 60, 120])
        x = side * EYE_X + EYE_SIZE[0] * np.cos(around)
        lids.append(place(x, EYE_Y + EYE_SIZE[1] * eyes * np.sin(around) * half_x / half_y))
    opening = performance.mouth[:, None]

    def lip(u: np.ndarray, direction: np.ndarray, thick: float) -> np.ndarray:
        middle = MOUTH_Y + SMILE * smile * (0.5 - u * u)
        return place(MOUTH_HALF * u, middle + direction * (thick + OPEN * opening * np.sqrt(1 - u * u)))

    upper, lower = np.linspace(-1, 1, 7), np.linspace(1, -1, 7)[1:-1]
    inner = np.linspace(-0.85, 0.85, 5)
    mouth = [
        lip(upper, np.full(7, -1.0) * (np.abs(upper) < 1), LIP),
        lip(lower, np.ones(5), LIP),
        lip(inner, np.full(5, -1.0), 0.0),
        lip(inner[-2:0:-1], np.ones(3), 0.0),
    ]
    parts = [jaw, *brows, *nose, *lids, *mouth]
    return np.concatenate([np.broadcast_to(part, (frames, *part.shape[1:])) for part in parts], axis=1)
