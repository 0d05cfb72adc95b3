"""Where scenes change: a frame that differs from the one before far more than its neighbours do."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

SIZE = (36, 64)
"""Height and width of the pictures that are compared."""

_LEAST = 12.0  # mean difference of a cut, of 255
_TIMES = 3.0  # as large as the mean of the two differences before and after
_BACK = 0.5  # a flash: the picture after it is as near to the one before as this share of the jump


def find_cuts(frames: Iterable[tuple[float, np.ndarray]]) -> list[float]:
    """Return the times of the first frames of new scenes, from (seconds, small picture uint8 [h, w, 3]).

    Hard cuts only: a dissolve has no moment. A flash of up to two frames is no cut. Holds five pictures at a time.
    """
    times: list[float] = []
    jumps: list[float] = []
    returns: list[float] = []  # how far the second picture after a jump is from the one before it
    recent: list[np.ndarray] = []
    for time, image in frames:
        small = image.astype(np.float32)
        times.append(time)
        jumps.append(_difference(small, recent[-1]) if recent else 0.0)
        returns.append(np.inf)
        if len(recent) >= 3:
            returns[-3] = min(_difference(recent[-1], recent[-3]), _difference(small, recent[-3]))
        recent = [*recent[-3:], small]
    found, flash = [], -3
    for index, jump in enumerate(jumps):
        around = jumps[max(index - 2, 1) : index] + jumps[index + 1 : index + 3]
        usual = sum(around) / len(around) if around else 0.0
        if not index or jump < _LEAST or jump < _TIMES * usual or index - flash <= 2:
            continue
        if returns[index] <= _BACK * jump:
            flash = index
        else:
            found.append(times[index])
    return found


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).mean()) if one.shape == other.shape else 255.0
