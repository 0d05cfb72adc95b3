"""Numbers that tell the classes of camera motion apart, from the motion of a clip.

What decides (facts of geometry): parallax, the residual after the planar fit, tells a translation from a rotation; a
rotation makes quadratic terms of its constant ones (the flow is larger at the rim), a translation none; in an orbit the
subject stays and what is behind it moves, while in a pan what is near moves most.
"""

from __future__ import annotations

import numpy as np

from hy_data.camera.motion import Motion
from hy_data.camera.moves import PIXELS

_TINY = 0.3 / PIXELS  # the motion over a clip that counts as none, where a ratio is taken


def upright(motion: Motion) -> tuple[bool, bool]:
    """Return by which mirrors (left-right, up-down) the picture moves to the right and down, on the whole."""
    net = motion.model[:, :2].sum(0)
    return bool(net[0] < 0), bool(net[1] < 0)


def features(motion: Motion) -> np.ndarray:
    """Return the features float32 [F] of a motion in its `upright` mirror."""
    motion = motion.mirrored(*upright(motion))
    model = motion.model
    shift, quadratic = model[:, :2], model[:, 6:8]
    growth, turn = (model[:, 2] + model[:, 5]) / 2, (model[:, 4] - model[:, 3]) / 2
    stretch, skew = (model[:, 2] - model[:, 5]) / 2, (model[:, 3] + model[:, 4]) / 2
    net, length = shift.sum(0), np.linalg.norm(shift, axis=1)
    path = float(length.sum())
    total = float(np.median(np.linalg.norm(motion.flow, axis=2), axis=1).sum())
    main = net / max(float(np.linalg.norm(net)), 1e-9)
    trust = motion.texture * (motion.texture > 0.1)
    values = [
        *(net * PIXELS),
        path * PIXELS,
        float(np.linalg.norm(net)) / (path + _TINY),
        total * PIXELS,
        growth.sum() * PIXELS,
        np.abs(growth).sum() * PIXELS,
        growth.sum() / (path + np.abs(growth).sum() + _TINY),
        turn.sum() * PIXELS,
        np.abs(turn).sum() * PIXELS,
        *(quadratic.sum(0) * PIXELS),
        *_keystone(shift, quadratic),
        stretch.sum() / (path + _TINY),
        skew.sum() / (path + _TINY),
        *(model[:, 2:6].sum(0) * PIXELS),
        *_unsteadiness(shift),
        *_parallax(motion, main, trust, path),
        *_rim(motion, main, trust, path),
    ]
    return np.nan_to_num(np.asarray(values, np.float32))


def _keystone(shift: np.ndarray, quadratic: np.ndarray) -> list[float]:
    """Quadratic over constant terms, along the motion and across, and for each axis: 1/focal^2 of a rotation."""
    power = float((shift**2).sum()) + 1e-6
    across = quadratic[:, 0] * shift[:, 1] - quadratic[:, 1] * shift[:, 0]
    each = (quadratic * shift).sum(0) / ((shift**2).sum(0) + 1e-6)
    return [float((quadratic * shift).sum()) / power, float(across.sum()) / power, *each.tolist()]


def _unsteadiness(shift: np.ndarray) -> list[float]:
    """Jerk, change of speed, and change of direction over the path."""
    length = np.linalg.norm(shift, axis=1)
    path = float(length.sum()) + _TINY
    second = np.diff(shift, 2, axis=0)
    along = (shift[1:] * shift[:-1]).sum(1) / (length[1:] * length[:-1] + 1e-6)
    return [
        float(np.linalg.norm(second, axis=1).sum()) / path,
        float(length.std() / (length.mean() + _TINY / 8)),
        float(np.minimum(along, 1).min()),
        float(np.linalg.norm(second, axis=1).mean()) * PIXELS,
    ]


def _parallax(motion: Motion, main: np.ndarray, trust: np.ndarray, path: float) -> list[float]:
    """The residual of the fit: its size, and its spread along and across the main direction, over the path."""
    size = np.linalg.norm(motion.residual, axis=2)
    along = (motion.residual @ main).ravel()
    across = (motion.residual @ np.array([-main[1], main[0]])).ravel()
    weight = trust.ravel()
    scale = path / len(motion.model) + _TINY / 8
    outside = (trust * (motion.fit < 0.3)).sum() / (trust.sum() + 1e-9)
    spread = _quantiles(along, weight, (0.03, 0.15, 0.85, 0.97)) / scale
    wide = _quantiles(across, weight, (0.03, 0.97)) / scale
    median = float(_quantiles(size.ravel(), weight, (0.5,))[0])
    skew = float((along * weight).sum() / (weight.sum() + 1e-9)) / scale
    return [
        median * PIXELS * 8,
        median / scale,
        float(outside),
        *spread,
        *wide,
        skew,
        float(spread[3] + spread[0]),
    ]


def _rim(motion: Motion, main: np.ndarray, trust: np.ndarray, path: float) -> list[float]:
    """Flow along the main direction in the middle and at the rim, over the path."""
    radius = np.linalg.norm(motion.points / np.abs(motion.points).max(0), axis=1)
    along = motion.flow @ main
    scale = path / len(motion.model) + _TINY / 8
    parts = []
    for where in (radius < 0.4, radius > 0.9):
        weight = trust[:, where]
        parts.append(float((along[:, where] * weight).sum() / (weight.sum() + 1e-9)) / scale)
    inner = np.linalg.norm(motion.flow[:, radius < 0.4], axis=2).mean() * PIXELS * 8
    outer = np.linalg.norm(motion.flow[:, radius > 0.9], axis=2).mean() * PIXELS * 8
    return [*parts, parts[1] - parts[0], float(inner), float(outer), float(inner / (outer + 1.0))]


def _quantiles(values: np.ndarray, weights: np.ndarray, shares: tuple[float, ...]) -> np.ndarray:
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    places = (
        np.searchsorted(total, np.asarray(shares) * total[-1])
        if total[-1] > 0
        else np.zeros(len(shares), int)
    )
    return values[order][np.minimum(places, len(values) - 1)]
