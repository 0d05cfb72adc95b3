"""Make a driver's pose fit: fill what is missing, calm it, give it the reference's limbs, change its rate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hy_core.errors import UsageError

from hy_avatar.pose import FACE, LEFT_HAND, POINTS, RIGHT_HAND, PoseTrack

# Each joint of the body and feet and the one it hangs on, from the neck outwards.
TREE = (
    (1, 2), (2, 3), (3, 4), (1, 5), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13), (1, 0),
    (0, 14), (0, 15), (14, 16), (15, 17), (13, 18), (13, 19), (13, 20), (10, 21), (10, 22), (10, 23),
)  # fmt: skip
_MIRROR = {
    (1, 2): (1, 5), (2, 3): (5, 6), (3, 4): (6, 7), (1, 8): (1, 11), (8, 9): (11, 12), (9, 10): (12, 13),
    (0, 14): (0, 15), (14, 16): (15, 17),
}  # fmt: skip
_MIRROR |= {other: one for one, other in _MIRROR.items()}
_RATIOS = (0.25, 4.0)  # no limb is changed by more
_GAP, _REACH = 8, 3  # frames that are bridged; deviations of the Gaussian that are summed over
AHEAD = _GAP + _REACH + 1
"""Frames after one that it depends on, filled and smoothed."""


def fill(track: PoseTrack, most: int = _GAP) -> PoseTrack:
    """Bridge gaps of up to `most` frames in each joint's path by a straight line; longer ones stay missing."""
    points = track.points.copy()
    for person in range(track.people):
        for joint in range(POINTS):
            path = points[:, person, joint]
            times = np.flatnonzero(np.isfinite(path).all(1))
            for a, b in zip(times[:-1], times[1:], strict=True):
                if 1 < b - a <= most + 1:
                    share = (np.arange(a + 1, b) - a)[:, None] / (b - a)
                    path[a + 1 : b] = path[a] + share * (path[b] - path[a])
    return replace(track, points=points)


def smooth(track: PoseTrack, deviation: float = 1.0) -> PoseTrack:
    """Calm every joint's path by a Gaussian of `deviation` frames, sure sights counting more.

    Missing joints stay missing and don't pull at others.
    """
    if deviation <= 0:
        return track
    there = np.isfinite(track.points).all(-1)
    weight = np.where(there, np.maximum(track.scores, 0.05), 0.0)
    values = np.where(there[..., None], track.points, 0.0) * weight[..., None]
    reach = int(np.ceil(_REACH * deviation))
    total, mass = np.zeros_like(values), np.zeros_like(weight)
    count = len(track)
    for step in range(-reach, reach + 1):
        if abs(step) >= count:
            continue
        kernel = np.exp(-0.5 * (step / deviation) ** 2)
        to = slice(max(0, -step), count - max(0, step))
        of = slice(max(0, step), count - max(0, -step))
        total[to] += kernel * values[of]
        mass[to] += kernel * weight[of]
    calm = total / np.maximum(mass, 1e-12)[..., None]
    return replace(track, points=np.where(there[..., None], calm, np.nan))


def resample(track: PoseTrack, frames: int, fps: float) -> PoseTrack:
    """Return the poses at `frames` moments of another rate; the last pose is held when the driver is shorter."""
    times = np.minimum(np.arange(frames) / fps * track.fps, len(track) - 1)
    before = np.floor(times).astype(int)
    after = np.minimum(before + 1, len(track) - 1)
    share = (times - before)[:, None, None, None]
    one, other = track.points[before], track.points[after]
    mixed = one + share * (other - one)
    # Beside a missing pose the nearer one counts alone.
    nearer = np.where(share < 0.5, one, other)
    points = np.where(np.isfinite(mixed), mixed, nearer)
    scores = np.where(share[..., 0] < 0.5, track.scores[before], track.scores[after])
    return PoseTrack(points, scores, fps, track.aspect)


def retarget(
    track: PoseTrack, reference: np.ndarray, person: int = 0, aspect: float | None = None
) -> PoseTrack:
    """Give a driver the limb lengths and the place of a reference figure.

    `reference` is one pose [134, 2] in parts of its picture (NaN missing), whose width over height is `aspect` (the
    driver's unless given). Every limb keeps the driver's direction in each frame and gets the reference's length:
    the driver's own, times the reference's over the driver's at full stretch. So foreshortening stays. A limb that
    the reference doesn't show takes its mirror limb's ratio, or the body's (median). Hands follow the forearms' ratio,
    the face the head's. The neck starts where the reference's is and moves in proportion.
    """
    reference = np.asarray(reference, np.float64)
    if reference.shape != (POINTS, 2):
        raise UsageError(f"a reference pose has shape {reference.shape}, not [134, 2]")
    aspect = aspect or track.aspect
    driver = track.points[:, person] * [track.aspect, 1.0]
    figure = reference * [aspect, 1.0]
    if not np.isfinite(figure[1]).all():
        raise UsageError(
            "the reference figure shows no neck", "take a picture in which both shoulders are seen"
        )
    ratios = _ratios(driver, figure)
    body = float(np.median(list(ratios.values()))) if ratios else 1.0
    placed = np.full_like(driver, np.nan)
    necks = driver[:, 1]
    seen = np.isfinite(necks).all(1)
    if not seen.any():
        raise UsageError("the driving pose shows no neck in any frame")
    placed[:, 1] = figure[1] + body * (necks - necks[seen][0])
    for parent, joint in TREE:
        ratio = ratios.get((parent, joint), ratios.get(_MIRROR.get((parent, joint), (0, 0)), body))
        placed[:, joint] = placed[:, parent] + ratio * (driver[:, joint] - driver[:, parent])
    head = ratios.get((0, 14), ratios.get((0, 15), ratios.get((1, 0), body)))
    for part, anchor, limb in ((FACE, 0, None), (LEFT_HAND, 7, (6, 7)), (RIGHT_HAND, 4, (3, 4))):
        ratio = head if limb is None else ratios.get(limb, ratios.get(_MIRROR[limb], body))
        placed[:, part] = placed[:, anchor, None] + ratio * (driver[:, part] - driver[:, anchor, None])
    points = track.points[:, person : person + 1].copy()
    points[:, 0] = placed / [aspect, 1.0]
    return PoseTrack(points, track.scores[:, person : person + 1].copy(), track.fps, aspect)


def _ratios(driver: np.ndarray, figure: np.ndarray) -> dict[tuple[int, int], float]:
    """Return the reference's length over the driver's at full stretch (90th percentile), of limbs both show."""
    ratios = {}
    for parent, joint in TREE:
        lengths = np.linalg.norm(driver[:, joint] - driver[:, parent], axis=1)
        wanted = float(np.linalg.norm(figure[joint] - figure[parent]))
        lengths = lengths[np.isfinite(lengths)]
        if len(lengths) and np.isfinite(wanted):
            stretch = float(np.percentile(lengths, 90))
            if stretch > 1e-4 and wanted > 1e-4:
                ratios[parent, joint] = float(np.clip(wanted / stretch, *_RATIOS))
    return ratios
