"""How the picture moves between frames of a clip: a planar motion model, robustly fitted to optical flow.

The motion of a plane seen by a moving camera is, to first order, a polynomial of 8 parameters (Longuet-Higgins, 1984):

    u = a0 + a1 x + a2 y + q1 x^2 + q2 x y
    v = b0 + b1 x + b2 y + q1 x y + q2 y^2

Image coordinates are from the picture's middle, in halves of its longer side; flows likewise, per pair of frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

PAIRS = 8
"""Pairs of frames, evenly spread over the clip."""

AREA = 256 * 144
"""Pixels of a picture in which the flow is measured, at most."""

_STEP = 5  # pixels between points of the flow that are fitted
_ROUNDS = 6  # of reweighting
_SHARP = 8.0  # gradient, in gray levels per pixel, of full weight


@dataclass(frozen=True)
class Motion:
    """Motion of a clip, of P pairs of frames and N points of the picture.

    `model` [P, 8]: a0, b0, a1, a2, b1, b2, q1, q2 of a pair, scaled to an eighth of the clip; `points` [N, 2];
    `flow` [P, N, 2]; `residual` [P, N, 2], flow minus model; `texture` [P, N], from 0 to 1, how far the flow can be
    trusted there; `fit` [P, N], from 0 to 1, the weight of a point in the fit.
    """

    model: np.ndarray
    points: np.ndarray
    flow: np.ndarray
    residual: np.ndarray
    texture: np.ndarray
    fit: np.ndarray

    def mirrored(self, across: bool, upside_down: bool) -> Motion:
        """Return the motion of the clip in a mirror that exchanges left and right, and up and down."""
        x, y = (-1.0 if across else 1.0), (-1.0 if upside_down else 1.0)
        sides = np.array([x, y])
        signs = np.array([x, y, 1, x * y, x * y, 1, x, y])
        return Motion(
            self.model * signs,
            self.points * sides,
            self.flow * sides,
            self.residual * sides,
            self.texture,
            self.fit,
        )


def measure_motion(frames: np.ndarray) -> Motion:
    """Measure the motion of gray pictures uint8 [T, H, W], T at least 2."""
    pictures = [
        _shrunk(frames[index]) for index in np.linspace(0, len(frames) - 1, PAIRS + 1).round().astype(int)
    ]
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    height, width = pictures[0].shape
    points, equations, products = _grid(height, width)
    rows: list[tuple[np.ndarray, ...]] = []
    for first, second in zip(pictures, pictures[1:], strict=False):
        dense = dis.calc(first, second, None)  # type: ignore[call-overload]
        flow = dense[_STEP // 2 :: _STEP, _STEP // 2 :: _STEP].reshape(-1, 2).astype(np.float64)
        flow *= 2 / max(height, width)
        texture = _texture(first)
        model, fit = _fit(equations, products, flow, texture, 0.02 * 2 / max(height, width))
        rows.append((model, flow, flow - (equations @ model).T, texture, fit))
    model, flow, residual, texture, fit = (np.stack(column) for column in zip(*rows, strict=True))
    return Motion(model, points, flow, residual, texture, fit)


def _shrunk(picture: np.ndarray) -> np.ndarray:
    scale = (AREA / picture.size) ** 0.5
    if scale >= 1:
        return np.ascontiguousarray(picture)
    return cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


@lru_cache(maxsize=16)
def _grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the points [N, 2] that are fitted, the model's equations [2, N, 8], and their normal terms [64, N]."""
    half = max(height, width) / 2
    row, column = np.arange(_STEP // 2, height, _STEP), np.arange(_STEP // 2, width, _STEP)
    rows, columns = np.meshgrid(row, column, indexing="ij")
    x, y = (columns.ravel() - (width - 1) / 2) / half, (rows.ravel() - (height - 1) / 2) / half
    one, no = np.ones_like(x), np.zeros_like(x)
    across = np.stack([one, no, x, y, no, no, x * x, x * y], 1)
    down = np.stack([no, one, no, no, x, y, x * y, y * y], 1)
    equations = np.stack([across, down])
    products = np.einsum("anp,anq->pqn", equations, equations).reshape(64, -1)
    return np.stack([x, y], 1), equations, products


def _texture(picture: np.ndarray) -> np.ndarray:
    right = cv2.Sobel(picture, cv2.CV_32F, 1, 0, scale=1 / 8)
    down = cv2.Sobel(picture, cv2.CV_32F, 0, 1, scale=1 / 8)
    strength = cv2.blur(right * right + down * down, (2 * _STEP, 2 * _STEP))
    strength = strength[_STEP // 2 :: _STEP, _STEP // 2 :: _STEP].ravel()
    return np.minimum(np.sqrt(strength) / _SHARP, 1.0) + 0.02


def _fit(
    equations: np.ndarray, products: np.ndarray, flow: np.ndarray, texture: np.ndarray, floor: float
) -> tuple[np.ndarray, np.ndarray]:
    """Fit the model by iteratively reweighted least squares; return it [8] and the weights [N].

    Geman-McClure weights with the median absolute residual as scale, not below `floor`.
    """
    weights, model = np.ones(len(flow)), np.zeros(8)
    for _ in range(_ROUNDS):
        both = weights * texture
        normal = (products @ both).reshape(8, 8)
        right = (both * flow[:, 0]) @ equations[0] + (both * flow[:, 1]) @ equations[1]
        model = np.linalg.solve(normal + 1e-9 * np.eye(8), right)
        error = np.hypot(*(flow.T - equations @ model))
        scale = max(1.4826 * float(np.median(error)), floor)
        weights = 1 / (1 + (error / (2 * scale)) ** 2) ** 2
    return model, weights
