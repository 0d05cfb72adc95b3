"""What a run does about a loss or gradients that are no numbers, or that jump."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from statistics import median

_HISTORY = 64  # losses that a spike is measured against
_LEAST = 32  # before there are as many, nothing counts as a spike
ATTEMPTS = 3
"""Batches in a row that may be skipped at one place; a run that fails as often ends."""


class BadStepError(Exception):
    """The step can't be taken: go back to the last good checkpoint and leave out the batch of this number."""

    def __init__(self, reason: str, number: int) -> None:
        super().__init__(reason)
        self.reason, self.number = reason, number


class LossHistory:
    """The last losses of a run: a spike is a loss over `factor` times their median; a factor of 0 finds none."""

    def __init__(self, factor: float, losses: Iterable[float] = ()) -> None:
        self.factor = factor
        self.losses: deque[float] = deque(losses, maxlen=_HISTORY)

    def problem(self, loss: float, what: str, step: int) -> str | None:
        """Return what is wrong with a loss, None if nothing is, and then remember it."""
        if not math.isfinite(loss):
            return f"the {what} is {loss} at step {step}"
        if self.factor and len(self.losses) >= _LEAST and loss > self.factor * abs(median(self.losses)):
            usual = median(self.losses)
            return f"the {what} jumps to {loss:.4g} at step {step} (the median of the last is {usual:.4g})"
        self.losses.append(loss)
        return None


def batch_number(step: int, skipped: Iterable[int]) -> int:
    """Return the number of the batch of a step: the step itself, counted without the skipped numbers."""
    number = step
    for one in sorted(skipped):
        if one <= number:
            number += 1
    return number
