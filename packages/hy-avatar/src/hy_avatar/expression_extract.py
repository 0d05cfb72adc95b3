"""Expression latents: a face's expression as numbers, without its identity.

VASA-1's latent has no public weights and its size isn't published (facts, section 1.2). There are two kinds of
`ExpressionExtractor`: a trained network (`face_codec`), and landmark residuals, which need no training.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from hy_core.errors import HyError
from torch import Tensor

from hy_avatar.faces import smooth

DIMENSION = 128
"""D_e, the default size of an expression latent; none is published."""


class ExpressionExtractor(Protocol):
    """Anything that turns a face's video into one vector for each frame."""

    dimension: int

    def extract(self, frames: np.ndarray) -> Tensor:
        """Return [F, D_e] for frames uint8 [F, H, W, 3]; `HyError` when there is no face in any of them."""
        ...


class Landmarker(Protocol):
    """Anything that finds the points of a face."""

    def landmarks(self, frames: np.ndarray) -> np.ndarray:
        """Return [F, P, 2] in pixels for frames uint8 [F, H, W, 3]; NaN where there is no face."""
        ...


def residuals(points: np.ndarray, neutral: np.ndarray | None = None) -> np.ndarray:
    """Return points [F, P, 2] without place, size, rotation and neutral shape: float64 [F, P, 2].

    Each frame is aligned with `neutral` [P, 2] (by default the mean of the clip's aligned frames) by the best
    similarity transform (Procrustes), and the difference is divided by the neutral shape's size (root mean square
    distance from its middle). A clip's own neutral shape of 68 points is rotated so that the eyes are level. Some
    identity remains.
    Frames without points are interpolated in time; HyError if all are.
    """
    points, there = filled(points)
    shapes = points - points.mean(1, keepdims=True)
    if neutral is None:
        neutral = shapes[there][0]
        for _ in range(3):
            neutral = _aligned(shapes, neutral).mean(0)
        neutral = _upright(neutral)
    else:
        neutral = np.asarray(neutral, np.float64) - np.mean(neutral, axis=0)
    size = np.sqrt((neutral**2).sum(1).mean())
    if size < 1e-9:
        raise HyError("the face's points are all in one place")
    return (_aligned(shapes, neutral) - neutral) / size


def filled(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Interpolate frames with missing points in time: points [F, P, 2], and which frames were complete, bool [F]."""
    points = np.asarray(points, np.float64)
    there = np.isfinite(points).all((1, 2))
    if not there.any():
        raise HyError(
            "no face was found in any frame", "an expression is taken from a video that shows a face"
        )
    if not there.all():
        times = np.arange(len(points))
        flat = points.reshape(len(points), -1)
        flat = np.stack([np.interp(times, times[there], column[there]) for column in flat.T], axis=1)
        points = flat.reshape(points.shape)
    return points, there


def _neutral_face() -> np.ndarray:
    """Return a neutral face of 68 points, [68, 2], in distances between the eyes from their middle."""
    around, along = np.radians(180 - np.linspace(0, 180, 17)), np.linspace(-1, 1, 5)
    lids, lips = np.radians([180, 240, 300, 0, 60, 120]), np.linspace(-1, 1, 7)
    inner = np.linspace(-0.8, 0.8, 5)
    upper, lower = -0.1 * np.sqrt(1 - lips**2), 0.1 * np.sqrt(1 - lips**2)
    parts = [
        (1.15 * np.cos(around), 1.75 * np.sin(around)),
        *((side * 0.5 + 0.3 * along, np.full(5, -0.4)) for side in (-1, 1)),
        (np.zeros(4), np.linspace(0, 0.55, 4)),
        (0.12 * along, np.full(5, NOSE)),
        *((side * 0.5 + 0.2 * np.cos(lids), 0.1 * np.sin(lids)) for side in (-1, 1)),
        (0.45 * lips, 1.2 + upper),
        (0.45 * lips[-2:0:-1], 1.2 + lower[1:-1]),
        (0.45 * inner, np.full(5, 1.2)),
        (0.45 * inner[-2:0:-1], np.full(3, 1.2)),
    ]
    return np.concatenate([np.stack(np.broadcast_arrays(x, y), -1) for x, y in parts])


def neutral_difference(points: np.ndarray) -> np.ndarray:
    """Return the difference of 68 points [F, 68, 2] from a neutral face, [F, 68, 2], also for a constant smile.

    Each frame is rotated until the eyes are level; horizontal lengths are in distances between the eyes, vertical ones
    in the distance from the eyes to the nose's base. This removes place, size, rotation and most proportions.
    """
    points, _ = filled(points)
    right, left = points[:, 36:42].mean(1), points[:, 42:48].mean(1)
    across = left - right
    apart = np.maximum(np.linalg.norm(across, axis=1), 1e-9)
    x = across / apart[:, None]
    y = np.stack([-x[:, 1], x[:, 0]], -1)
    from_eyes = points - ((left + right) / 2)[:, None]
    wide = np.einsum("fpc,fc->fp", from_eyes, x) / apart[:, None]
    deep = np.einsum("fpc,fc->fp", from_eyes, y)
    nose = np.median(deep[:, 33])
    if nose < 1e-3 * np.median(apart):
        raise HyError("the face's points are all in one place")
    return np.stack([wide, deep * (NOSE / nose)], -1) - NEUTRAL


def latent_of(points: np.ndarray, dimension: int = DIMENSION, smoothing: float = 0.0) -> Tensor:
    """Return the expression latent [F, D_e], float32, of points [F, P, 2]; 68 points are compared to a neutral face."""
    values = neutral_difference(points) if np.shape(points)[1] == 68 else residuals(points)
    values = smooth(values, smoothing).reshape(len(values), -1)
    return torch.from_numpy(values @ _projection(values.shape[1], dimension)).float()


NOSE = 0.75  # the nose's base below the eyes, in distances between the eyes
NEUTRAL = _neutral_face()


def _upright(shape: np.ndarray) -> np.ndarray:
    """Rotate a shape of 68 points until the eyes are level; others are returned as they are."""
    if len(shape) != 68:
        return shape
    x, y = shape[42:48].mean(0) - shape[36:42].mean(0)
    length = max(float(np.hypot(x, y)), 1e-12)
    return shape @ np.array([[x, -y], [y, x]]) / length


def _aligned(shapes: np.ndarray, onto: np.ndarray) -> np.ndarray:
    """Rotate and scale centred shapes [F, P, 2] to the best fit of `onto` [P, 2], as complex numbers."""
    flat, target = shapes[..., 0] + 1j * shapes[..., 1], onto[:, 0] + 1j * onto[:, 1]
    factor = (flat.conj() * target).sum(1) / np.maximum((np.abs(flat) ** 2).sum(1), 1e-12)
    fitted = flat * factor[:, None]
    return np.stack([fitted.real, fitted.imag], axis=-1)


class LandmarkExtractor:
    """Landmark residuals, projected to D_e numbers by a fixed orthonormal matrix.

    The matrix depends on the number of points and `dimension` alone.
    """

    def __init__(self, landmarker: Landmarker, dimension: int = DIMENSION, smoothing: float = 0.0) -> None:
        self.landmarker, self.dimension, self.smoothing = landmarker, dimension, smoothing

    def extract(self, frames: np.ndarray) -> Tensor:
        """See `ExpressionExtractor.extract`.

        Frames are uint8 [F, H, W, 3]; the result is float32 [F, dimension].
        """
        return latent_of(self.landmarker.landmarks(frames), self.dimension, self.smoothing)


def _projection(inputs: int, outputs: int) -> np.ndarray:
    """Return a fixed matrix [inputs, outputs] with orthonormal rows or columns."""
    drawn = np.random.default_rng(inputs * 100_003 + outputs).normal(size=(max(inputs, outputs),) * 2)
    orthonormal, _ = np.linalg.qr(drawn)
    return orthonormal[:inputs, :outputs]
