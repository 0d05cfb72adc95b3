"""What `hy train` trains: a model, its batches, and the loss of a batch. A plugin registers its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import Tensor, nn

    from hy_core.training.recipe import Recipe

BatchT = TypeVar("BatchT")


class Objective(Generic[BatchT]):
    """A training task, generic over its batch. Subclasses set `self.model` and override the methods below.

    A batch is a function of the recipe, the step and the rank alone, never of earlier batches: a resumed run gets the
    batches it would have got without the interruption, and ranks get different ones.

    An adversarial objective also sets `self.critic` and overrides `critic_loss`: in each step the critic is updated
    first, by an optimiser of its own, then the model, with the critic frozen.
    """

    model: nn.Module
    critic: nn.Module | None = None

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self.recipe, self.folder = recipe, folder

    def prepare(self) -> None:
        """Do slow work once, before training; results that can be reused belong in the run's folder."""

    def batch(self, step: int, rank: int = 0, ranks: int = 1) -> BatchT:
        """Return the batch of a step (from 0) and rank."""
        raise NotImplementedError

    def loss(self, batch: BatchT, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Return the loss, a scalar, and values to log; all random numbers come from `generator`."""
        raise NotImplementedError

    def critic_loss(self, batch: BatchT, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Return the critic's loss, a scalar, and values to log; called before `loss`, with the same batch."""
        raise NotImplementedError

    def evaluate(self) -> dict[str, float]:
        """Return measurements on held-out data; the averaged weights are in place."""
        return {}

    def export(self, folder: Path) -> None:
        """Write the files that the commands load; the averaged weights are in place."""
        raise NotImplementedError
