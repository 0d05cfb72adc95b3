"""Gradual transitions between shots, found by what they are: a dissolve is a linear blend of two different pictures.

Frames are taken 48 pixels wide, RGB, each channel without its mean: x_t. In a dissolve from frame a to frame b,
x_t = (1 - w) x_a + w x_b with w = (t - a) / (b - a), and x_a and x_b are uncorrelated. A moving camera or an object
fails: frames between aren't blends, their contrast doesn't sink as a blend's does, or the ends are alike. It all comes
from inner products of near frames. A fade goes through frames without contrast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

HEIGHT, WIDTH = 27, 48
"""Size of the frames that are compared."""
LONGEST = 48
"""Frames of the longest dissolve."""

_LENGTHS = (6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 28, 32, 36, 40, 44, LONGEST)
# At most: the blend's unexplained part, the weights' rms distance from a line, the correlation of the ends, the change
# outside (relative to that from end to end), and the contrast that is kept of what a blend loses. The last tells most:
# dissolves of real shots keep under 5%, however much moves in them, a pan keeps all.
_LIMITS = np.array([0.2, 0.2, 0.55, 0.6, 0.2])
_MOST = 2.4  # of the sum of all, each by its limit
_LEAST_CHANGE = 0.012  # mean square of values in [0, 1]
_BLANK = 3e-4  # mean square below which a frame has no contrast: 1.7% of the range
_RAMP, _AHEAD = 1.09, 3  # growth of contrast in so many frames that belongs to a fade


@dataclass(frozen=True)
class Transition:
    """Frames [first, stop) belong to neither shot; a cut has none, and the new shot begins at `first`."""

    kind: str
    first: int
    stop: int


def find_gradual(frames: np.ndarray, cuts: Sequence[int] = ()) -> list[Transition]:
    """Return the dissolves and fades of frames uint8 [T, 27, 48, 3], in order, without overlap.

    No dissolve reaches over one of `cuts`, the first frames of new shots, unless it is at its end.
    """
    products = _products(frames)
    fades = _fades(products[:, 0])
    dissolves = _dissolves(products, cuts)
    taken = [one for one in dissolves if not any(one.first < f.stop and f.first < one.stop for f in fades)]
    return sorted([*fades, *taken], key=lambda one: one.first)


def _products(frames: np.ndarray) -> np.ndarray:
    """Inner products of each frame with itself and the next ones: float32 [T, LONGEST + 24], 0 past the end."""
    count, reach = len(frames), LONGEST + 24
    values = frames.reshape(count, -1, 3).astype(np.float32) / 255
    values -= values.mean(1, keepdims=True)
    values = values.reshape(count, -1) / np.float32(np.sqrt(values.shape[1] * 3))
    found = np.zeros((count, reach), np.float32)
    block = 64
    for start in range(0, count, block):
        square = values[start : start + block] @ values[start : start + block + reach].T
        for row in range(len(square)):
            part = square[row, row : row + reach]
            found[start + row, : len(part)] = part
    return found


def _fades(contrast: np.ndarray) -> list[Transition]:
    """Runs of frames without contrast, with the ramps beside them."""
    blank = np.flatnonzero(contrast < _BLANK)
    found: list[Transition] = []
    for run in np.split(blank, np.flatnonzero(np.diff(blank) > 1) + 1) if len(blank) else ():
        first, stop = int(run[0]), int(run[-1]) + 1
        while (
            first > 0
            and contrast[max(first - _AHEAD, 0) : first].max() > max(contrast[first], _BLANK) * _RAMP
        ):
            first -= 1
        while (
            stop < len(contrast)
            and contrast[stop : stop + _AHEAD].max() > max(contrast[stop - 1], _BLANK) * _RAMP
        ):
            stop += 1
        if found and first <= found[-1].stop:
            found[-1] = Transition("fade", found[-1].first, stop)
        else:
            found.append(Transition("fade", first, stop))
    return found


def _dissolves(products: np.ndarray, cuts: Sequence[int]) -> list[Transition]:
    count = len(products)
    scored: list[tuple[float, int, int]] = []
    hard = np.zeros(count + 1, np.int64)
    hard[[cut for cut in cuts if 0 <= cut < count]] = 1
    before = np.concatenate([[0], np.cumsum(hard[:count])])  # cuts among frames [0, t)
    for length in _LENGTHS:
        if count <= length:
            break
        cost = _costs(products, length)
        firsts = np.arange(len(cost))
        inside = before[firsts + length - 1] - before[np.minimum(firsts + 3, firsts + length - 1)]
        cost[inside > 0] = np.inf
        scored += [(float(cost[a]), int(a), int(a) + length) for a in np.flatnonzero(cost < _MOST)]
    found: list[Transition] = []
    for _, first, last in sorted(scored):
        if all(last <= one.first or one.stop <= first + 1 for one in found):
            found.append(Transition("dissolve", first + 1, last))
    return found


def _costs(products: np.ndarray, length: int) -> np.ndarray:
    """How badly frames [a, a + length] are a dissolve, for each a: float [T - length]; inf beyond a limit."""
    count = len(products)
    a = np.arange(count - length)
    b = a + length
    own, across = products[:, 0], products[a, length]
    change = own[a] + own[b] - 2 * across
    safe = np.maximum(change, 1e-6)
    unexplained, bend, kept, lost = (np.zeros(len(a)) for _ in range(4))
    for step in range(1, length):
        t = a + step
        to_a, to_b = products[a, step], products[t, length - step]
        weight = (to_b - to_a - across + own[a]) / safe
        unexplained += own[t] + own[a] - 2 * to_a - weight**2 * change
        share = step / length
        bend += (weight - share) ** 2
        blend = (1 - share) ** 2 * own[a] + share**2 * own[b] + 2 * share * (1 - share) * across
        kept += own[t] - blend
        lost += share * (1 - share) * change
    unexplained /= (length - 1) * safe
    bend = np.sqrt(bend / (length - 1))
    alike = across / np.maximum(np.sqrt(own[a] * own[b]), _BLANK)
    gap = max(3, length // 3)
    sooner, later = np.maximum(a - gap, 0), np.minimum(b + gap, count - 1)
    outside = np.maximum(
        own[a] + own[sooner] - 2 * products[sooner, a - sooner],
        own[b] + own[later] - 2 * products[b, later - b],
    )
    kept = np.maximum(kept, 0) / np.maximum(lost, 1e-6)
    terms = np.stack([unexplained, bend, np.maximum(alike, 0), outside / safe, kept], 1) / _LIMITS
    return np.where((change > _LEAST_CHANGE) & (terms < 1).all(1), terms.sum(1), np.inf)
