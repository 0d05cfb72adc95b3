"""What an objective is: a model, batches for it, and the loss of a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hy_train.recipe import Recipe


class Objective:
    """One thing to learn. Subclasses set `self.model` and override the methods below.

    A batch is a function of the recipe and the step alone, never of what came before: a run that was killed goes on
    with exactly the batches it would have seen, and two ranks see different ones.
    """

    model: nn.Module

    def __init__(self, recipe: Recipe, folder: Path):
        self.recipe, self.folder = recipe, folder

    def prepare(self) -> None:
        """Do once, before training, what takes long and can be kept in the run's folder (caches)."""

    def batch(self, step: int, rank: int = 0, ranks: int = 1) -> Any:
        """Return the batch of a step and rank."""
        raise NotImplementedError

    def loss(self, batch: Any, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Return the loss to minimise and what to log; every random number comes from the generator."""
        raise NotImplementedError

    def evaluate(self) -> dict[str, float]:
        """Measure the model (the averaged weights are in place) on held-out data."""
        return {}

    def export(self, folder: Path) -> None:
        """Write what `hy generate` loads (the averaged weights are in place)."""
        raise NotImplementedError


def seeded(*numbers: int) -> int:
    """Return one seed for several numbers (seed, step, rank, …), spread over 63 bits."""
    import numpy as np

    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
