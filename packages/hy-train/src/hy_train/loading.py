"""Batches for Lightning's loop, made in this process or in loader processes."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from hy_core.errors import HyError, UsageError
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from hy_train.guard import batch_number

if TYPE_CHECKING:
    from hy_core.training import Objective

    from hy_train.module import TrainModule


class LoaderError:
    """An error of a loader process, in place of a batch: the library would wrap it in many lines."""

    def __init__(self, error: HyError) -> None:
        self.message, self.hint = error.message, error.hint

    def throw(self) -> NoReturn:
        """Raise the error here."""
        raise HyError(self.message, self.hint)


class Batches(IterableDataset[Any]):
    """The batches from a step on, all of each step; each of several loader processes makes every n-th."""

    def __init__(
        self, objective: Objective[Any], step: int, micros: list[int], ranks: int, skipped: Iterable[int] = ()
    ) -> None:
        """Take the ranks (`micros`) whose batches this process makes in each step, in order, out of `ranks`.

        `skipped` are the numbers of batches that are left out.
        """
        self.objective, self.step, self.micros, self.ranks = objective, step, micros, ranks
        self.skipped = frozenset(skipped)

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        number, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        while True:
            step, micro = divmod(number, len(self.micros))
            try:
                found = batch_number(self.step + step, self.skipped)
                yield self.objective.batch(found, self.micros[micro], self.ranks)
            except HyError as error:
                yield LoaderError(error)
                return
            number += stride


def loader(module: TrainModule) -> DataLoader[Any]:
    """Return the loader of a run, which continues at the module's step.

    With `workers` batches are made by that many processes, on a copy of the objective without its networks, and are
    put into page-locked memory for a GPU. `UsageError` for an objective that can't be sent to another process.
    """
    recipe = module.recipe
    micros = [module.micro_rank(micro) for micro in range(recipe.accumulate)]
    ranks = recipe.accumulate * module.data_ranks
    objective = module.objective.without_networks() if recipe.workers else module.objective
    batches = Batches(objective, module.global_step, micros, ranks, module.skipped)
    if recipe.workers:
        try:
            pickle.dumps(batches)
        except Exception as error:
            raise UsageError(
                f"workers = {recipe.workers}: the batches of {recipe.objective!r} can't be made in other processes "
                f"({' '.join(str(error).split())[:80]})",
                "set workers = 0",
            ) from None
    return DataLoader(
        batches,
        batch_size=None,
        num_workers=recipe.workers,
        multiprocessing_context="spawn" if recipe.workers else None,
        pin_memory=bool(recipe.workers) and torch.cuda.is_available(),
    )
