"""Thresholds solved from the distributions of scores, so that a wanted share of clips passes all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

Better = Literal["high", "low"]


@dataclass(frozen=True)
class Solved:
    """Thresholds by score: a clip passes with a value that is at least (`better` high) or at most (low) that.

    Each threshold alone drops at most the share `level` of the clips, the same for all scores.
    """

    thresholds: Mapping[str, float]
    level: float


def solve(scores: Mapping[str, np.ndarray], better: Mapping[str, Better], keep: float) -> Solved:
    """Return the strictest thresholds at one common quantile that together keep at least the share `keep` of the clips.

    `scores` are float64 [N] of the same N clips, NaN where a score wasn't measured; those clips count as dropped. Equal
    values are kept or dropped together, so more than `keep` may pass. Without a clip that has all scores there is no
    threshold (an empty mapping).
    """
    measured = np.all([np.isfinite(values) for values in scores.values()], axis=0)
    count = int(measured.sum())
    if not count:
        return Solved({}, 0.0)
    good = {name: _good(values[measured], better[name]) for name, values in scores.items()}
    ranks = {name: _ranks(values) for name, values in good.items()}
    lowest = np.min(list(ranks.values()), axis=0)
    wanted = min(max(math.ceil(keep * len(measured) - 1e-9), 1), count)
    level = float(np.partition(lowest, count - wanted)[count - wanted])
    thresholds = {
        name: float(values[ranks[name] >= level].min()) * (1 if better[name] == "high" else -1)
        for name, values in good.items()
    }
    return Solved(thresholds, level)


def _good(values: np.ndarray, better: Better) -> np.ndarray:
    return values if better == "high" else -values


def _ranks(values: np.ndarray) -> np.ndarray:
    """The share of values that are no better than each; equal values have the rank of the best of them.

    So many equal best values, such as no text at all, are rank 1, and a value that most clips share isn't dropped
    before the level reaches them all.
    """
    return np.searchsorted(np.sort(values), values, side="right") / len(values)
