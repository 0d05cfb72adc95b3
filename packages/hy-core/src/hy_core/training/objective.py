"""What `hy train` trains: a model, its batches, and the loss of a batch. A plugin registers its own."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Generic, NamedTuple, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    import torch
    from torch import Tensor, nn

    from hy_core.training.recipe import Recipe

BatchT = TypeVar("BatchT")


class Workload(NamedTuple):
    """The clips, tokens and operations (forward and backward) of a batch; 0 where they aren't known."""

    samples: int
    tokens: int = 0
    flops: float = 0.0


class Objective(Generic[BatchT]):
    """A training task, generic over its batch. Subclasses set `self.model` and override the methods below.

    A run calls, in this order and in every process: the constructor, which reads the recipe and may leave the model on
    the meta device, without memory; `prepare`, which encodes data; `load`, which gives the model the values that
    training starts from; then `batch` and `loss`. Networks that are not trained (a teacher, a VAE) go into
    `self.frozen`: they are moved to the device of the model, without gradients, and are in no checkpoint.

    A batch is a function of the recipe, the step and the rank alone, never of earlier batches: a resumed run gets the
    batches it would have got without the interruption, and ranks get different ones. It is one object; its method
    `to(device)`, if it is no tensor, list or dict, moves it to the device of the model. `batch` may be called in
    another process, on the copy of the objective that `without_networks` returns.

    An adversarial objective also sets `self.critic` and overrides `critic_loss`: in each step the critic is updated
    first, by an optimiser of its own, then the model, with the critic frozen.
    """

    model: nn.Module
    critic: nn.Module | None = None
    step: int = 0
    """The step at which `evaluate` and `export` are called."""
    trained: Collection[str] | None = None
    """Names of the tensors of the model that are trained, averaged and in checkpoints; None for all."""
    frozen: Mapping[str, nn.Module]
    """Networks by name that take part without being trained: moved to the device, in no checkpoint."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self.recipe, self.folder = recipe, folder
        self.frozen = {}

    def prepare(self) -> None:
        """Do slow work once, before training; results that can be reused belong in the run's folder.

        The first process is done with it before the others start, so that they find what it left in the folder.
        """

    def initial_state(self) -> Mapping[str, Tensor]:
        """Return the values that training starts from: all parameters and buffers of the model, by name.

        Called where the model is on the meta device. A strategy that shards the model takes each process' parts of it.

        Tensors of any shape, that of the model's.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has its model on the meta device and no initial_state"
        )

    def load(self) -> None:
        """Give the model its initial values if it is on the meta device; otherwise it has them already."""
        from hy_core.training.materialise import fill, is_meta

        if is_meta(self.model):
            fill(self.model, self.initial_state())

    def without_networks(self) -> Self:
        """Return a copy for `batch` in another process: without the model, the critic and the frozen networks."""
        other = copy.copy(self)
        for name in ("model", "critic", "frozen"):
            other.__dict__.pop(name, None)
        return other

    def batch(self, step: int, rank: int = 0, ranks: int = 1) -> BatchT:
        """Return the batch of a step (from 0) and rank.

        Ranks are those of data parallelism; gradients accumulated over several batches count as further ranks, so
        that 2 processes see what 1 process with `accumulate = 2` sees.
        """
        raise NotImplementedError

    def loss(self, batch: BatchT, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Return the loss, a scalar, and values to log; all random numbers come from `generator`.

        The generator is of the model's device.
        """
        raise NotImplementedError

    def critic_loss(self, batch: BatchT, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Return the critic's loss, a scalar, and values to log; called before `loss`, with the same batch."""
        raise NotImplementedError

    def workload(self, batch: BatchT) -> Workload:
        """Return what a batch is to compute, for rates in the log."""
        return Workload(self.recipe.batch)

    def largest_batch(self) -> BatchT | None:
        """Return a batch as large as any that will come, to be tried before the first step; None if all are alike."""
        return None

    def evaluate(self) -> dict[str, float]:
        """Return measurements on held-out data; the averaged weights are in place."""
        return {}

    def export(self, folder: Path) -> None:
        """Write the files that the commands load; the averaged weights are in place."""
        raise NotImplementedError
