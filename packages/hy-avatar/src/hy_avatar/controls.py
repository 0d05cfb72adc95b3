"""Scalar controls: how much the head moves, how lively the face is, how fast frames follow; and their labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from hy_core.dit.layers import NumberEmbedding
from torch import Tensor, nn

#: The released sampler's constants: buckets of head motion and of expression.
HEAD, EXPRESSION = 25.0, 30.0
BUCKETS = 100
#: Pixels' worth of buckets: a track that strays by this part of the distance between the eyes fills all of them.
HEAD_FULL, EXPRESSION_FULL = 0.5, 0.1


class Controls(nn.Module):
    """Embed the numbers and add them to the vector that modulates every block (facts 1.3.5).

    The inputs: `motion_head` and `motion_expression` [B, n] (n numbers, the released model takes four
    equal ones), `fps` [B]. Each of the n numbers is embedded to D/n channels, and those stand side by side.
    """

    def __init__(self, width: int, numbers: int = 4) -> None:
        super().__init__()
        self.motion_expression = NumberEmbedding(width // numbers)
        self.motion_head = NumberEmbedding(width // numbers)
        self.fps = NumberEmbedding(width)
        for embedding in (self.motion_expression, self.motion_head, self.fps):
            last: Any = embedding.mlp[2]
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, vec: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        if "fps" not in inputs:
            return vec
        device = vec.device
        motion = self.motion_expression(inputs["motion_expression"].to(device)).flatten(1)
        motion = motion + self.motion_head(inputs["motion_head"].to(device)).flatten(1)
        return vec + (motion + self.fps(inputs["fps"].to(device)))[:, None].to(vec.dtype)


def inputs(head: float, expression: float, fps: float, numbers: int = 4) -> dict[str, Tensor]:
    """Return the inputs of `Controls` for one clip: buckets 0 to 100 and frames a second.

    Returns `motion_head` and `motion_expression` [1, numbers] and `fps` [1].
    """
    return {
        "motion_head": torch.full((1, numbers), float(head)),
        "motion_expression": torch.full((1, numbers), float(expression)),
        "fps": torch.tensor([float(fps)]),
    }


def head_bucket(nose: np.ndarray, eyes: float | np.ndarray, full: float = HEAD_FULL) -> int:
    """The label of head motion of a clip, 0 to 100: how far the nose tip strays from its mean place.

    `nose` is [F, 2] in pixels (frames without a face are NaN and left out), `eyes` the distance between the eyes,
    one number or one a frame. The measure is the standard deviation in distances between the eyes; `full` of them
    is bucket 100. A clip with fewer than two frames with a face has bucket 0.
    """
    return _bucket(_spread(np.asarray(nose, np.float64)[:, None]), eyes, full)


def expression_bucket(points: np.ndarray, eyes: float | np.ndarray, full: float = EXPRESSION_FULL) -> int:
    """The label of facial motion of a clip, 0 to 100: how far points stray when head motion is taken away.

    `points` is [F, P, 2] in pixels (frames without a face are NaN). Each frame is laid on the clip's mean face by the
    similarity transform that fits best (shift, turn and scale), and what is left is the face's own motion.
    """
    points = np.asarray(points, np.float64)
    seen = np.isfinite(points).all((1, 2))
    return _bucket(_spread(_without_pose(points[seen])), eyes, full)


def _spread(tracks: np.ndarray) -> float:
    """Standard deviation over time of tracks [F, P, 2], as one length: the root of the mean variance of a point."""
    tracks = tracks[np.isfinite(tracks).all((1, 2))]
    return float(np.sqrt(tracks.var(0).sum(-1).mean())) if len(tracks) > 1 else 0.0


def _bucket(spread: float, eyes: float | np.ndarray, full: float) -> int:
    distances = np.asarray(eyes, np.float64).ravel()
    distances = distances[np.isfinite(distances) & (distances > 0)]
    if not len(distances):
        return 0
    return int(np.clip(round(BUCKETS * spread / (full * float(np.median(distances)))), 0, BUCKETS))


def _without_pose(points: np.ndarray, rounds: int = 3) -> np.ndarray:
    """Lay the shapes [F, P, 2] on their mean shape, each by its best similarity transform (Procrustes)."""
    if not len(points):
        return points
    shapes = (
        points[..., 0] + 1j * points[..., 1]
    )  # the plane as complex numbers: turn and scale are one factor
    shapes = shapes - shapes.mean(1, keepdims=True)
    mean = shapes[0]
    for _ in range(rounds):
        turn = (shapes.conj() * mean).sum(1) / np.maximum((np.abs(shapes) ** 2).sum(1), 1e-12)
        fitted = shapes * turn[:, None]
        size = np.linalg.norm(mean)
        mean = fitted.mean(0)
        mean = mean * (size / max(float(np.linalg.norm(mean)), 1e-12))
    return np.stack([fitted.real, fitted.imag], -1)
