"""What `hy train` trains: a model, batches for it, and the loss of a batch. A plugin registers its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Recipe(Protocol):
    """What an objective reads of a recipe; the tables `model`, `data` and `options` are its own to check.

    `hy_core.tables.from_table` turns a table into a dataclass.
    """

    @property
    def name(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def batch(self) -> int: ...
    @property
    def plugins(self) -> tuple[str, ...]: ...
    @property
    def model(self) -> dict[str, Any]: ...
    @property
    def data(self) -> dict[str, Any]: ...
    @property
    def options(self) -> dict[str, Any]: ...


class Objective:
    """One thing to learn. Subclasses set `self.model` and override the methods below.

    A batch is a function of the recipe and the step alone, never of what came before: a run that was killed goes on
    with exactly the batches it would have seen, and two ranks see different ones.

    An adversarial objective also sets `self.critic`, and overrides `critic_loss`: in each step the critic learns
    first, with an optimiser of its own, then the model, for which the critic stands still.
    """

    model: nn.Module
    critic: nn.Module | None = None

    def __init__(self, recipe: Recipe, folder: Path):
        self.recipe, self.folder = recipe, folder

    def prepare(self) -> None:
        """Do once, before training, what takes long and can be kept in the run's folder (caches)."""

    def batch(self, step: int, rank: int = 0, ranks: int = 1) -> Any:
        """Return the batch of a step and rank."""
        raise NotImplementedError

    def loss(self, batch: Any, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Return the loss to minimise and what to log; every random number comes from the generator.

        The loss is a scalar tensor.
        """
        raise NotImplementedError

    def critic_loss(self, batch: Any, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Return the critic's loss and what to log. It comes before `loss` and has the same batch.

        The loss is a scalar tensor.
        """
        raise NotImplementedError

    def evaluate(self) -> dict[str, float]:
        """Measure the model (the averaged weights are in place) on held-out data."""
        return {}

    def export(self, folder: Path) -> None:
        """Write what the commands load (the averaged weights are in place)."""
        raise NotImplementedError


def seeded(*numbers: int) -> int:
    """Return one seed for several numbers (seed, step, rank, …), spread over 63 bits."""
    import numpy as np

    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
