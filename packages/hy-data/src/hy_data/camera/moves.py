"""Camera paths of the 14 classes: where the camera is, where it looks, and its focal length, frame by frame.

Units: the depth of the background is 1; x points to the right, y down, z forwards; angles in radians; focal lengths in
halves of the picture's longer side, as all image coordinates here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PIXELS = 128
"""Half of the longer side of a 256x144 picture: image coordinates in units of it become pixels of that picture."""

_TO = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)}


@dataclass(frozen=True)
class Path:
    """A camera's path in its first frame's own axes.

    `position` [T, 3]; `rotation` [T, 3, 3] from the first frame's axes to each frame's; `focal` [T].
    """

    position: np.ndarray
    rotation: np.ndarray
    focal: np.ndarray


@dataclass(frozen=True)
class Speed:
    """Ranges that moves are drawn from: `motion` in pixels of a 256x144 picture over the clip, `orbit` in degrees."""

    motion: tuple[float, float]
    orbit: tuple[float, float]


NORMAL = Speed((16.0, 96.0), (8.0, 26.0))
SLOW = Speed((8.0, 30.0), (5.0, 14.0))


def camera_path(
    name: str,
    frames: int,
    rng: np.random.Generator,
    *,
    speed: Speed = NORMAL,
    depth: float = 1.0,
    pivot: float,
) -> Path:
    """Draw a path of a class, of `frames` frames.

    `depth` is that of the most of the scene: a pan is as long as moves that by the drawn motion. `pivot` is the depth
    of the point that an orbit goes about.
    """
    kind, _, way = name.partition(" ")
    focal = 1 / np.tan(np.radians(rng.uniform(42, 72)) / 2)
    low, high = speed.motion
    motion = float(np.exp(rng.uniform(np.log(low), np.log(high)))) / PIXELS
    at = _progress(frames, rng)
    position, angles, focals = np.zeros((frames, 3)), np.zeros((frames, 3)), np.full(frames, focal)
    if kind == "pan":
        position[:, :2] = at[:, None] * np.array(_TO[way]) * motion * depth / focal
    elif kind == "tilt":
        angles[:, :2] = at[:, None] * np.array(_TO[way]) * np.arctan(motion / focal)
    elif kind == "zoom":
        growth = (1 + motion) ** (at if way == "in" else -at)
        if rng.random() < 0.5:
            focals = focal * growth / growth.max() * max(1.0, float(growth[0]))
        else:
            position[:, 2] = depth * (1 - 1 / growth)
    elif kind == "around":
        angle = at * np.radians(rng.uniform(*speed.orbit)) * _TO[way][0]
        position[:, 0], position[:, 2] = pivot * np.sin(angle), pivot * (1 - np.cos(angle))
        angles[:, 0] = -angle
    angles[:, :2] += at[:, None] * _drift(kind, way, rng) * np.arctan(motion / focal)
    shake = _shake(frames, rng)
    if kind == "handheld":
        shake *= rng.uniform(1.5, 8.0) / PIXELS
    elif kind == "static":
        shake *= 0.0
    else:
        shake *= rng.choice([0.0, 0.01, 0.04]) * motion
    angles += shake[:, :3] / focal
    position += shake[:, 3:] * np.array([0.4, 0.4, 0.2]) / focal * depth
    return Path(position, np.stack([_rotation(*one) for one in angles]), focals)


def _drift(kind: str, way: str, rng: np.random.Generator) -> np.ndarray:
    """Return what half of the moves have besides, in shares of them: a zoom beside the middle, a pan that slopes."""
    if rng.random() < 0.5 or kind not in ("zoom", "pan", "tilt"):
        return np.zeros(2)
    if kind == "zoom":
        angle = rng.uniform(0, 2 * np.pi)
        return np.array([np.cos(angle), np.sin(angle)]) * rng.uniform(0, 0.6)
    return np.array(_TO[way])[::-1] * rng.uniform(-0.2, 0.2)


def _progress(frames: int, rng: np.random.Generator) -> np.ndarray:
    """From 0 to 1: linear, or eased in and out to some degree."""
    at = np.linspace(0, 1, frames)
    return at + rng.choice([0.0, 0.5, 1.0]) * (at * at * (3 - 2 * at) - at)


def _shake(frames: int, rng: np.random.Generator) -> np.ndarray:
    """Return the unsteadiness of a hand: [T, 6] of yaw, pitch, roll and x, y, z, each a sum of slow waves."""
    time = np.linspace(0, 1, frames)[:, None, None]
    cycles = rng.uniform(0.6, 5.0, (1, 6, 5))
    sizes = rng.normal(size=(1, 6, 5)) / cycles**0.5
    waves = (sizes * np.sin(2 * np.pi * (cycles * time + rng.random((1, 6, 5))))).sum(2)
    waves[:, 2] *= 0.5  # a hand rolls less
    return waves - waves[:1]


def _rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Return the matrix that turns world axes into those of a camera turned to the right, down, and clockwise."""
    cy, sy, cp, sp, cr, sr = (
        np.cos(yaw),
        np.sin(yaw),
        np.cos(pitch),
        np.sin(pitch),
        np.cos(roll),
        np.sin(roll),
    )
    about_y = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, sr, 0], [-sr, cr, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_x @ about_y)
