"""Progressive unfreezing: groups of layers join the training one after the other; the rest stays frozen."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import lightning.pytorch as pl
from hy_core.errors import UsageError
from hy_core.options import nearest
from torch import nn

from hy_train.recipe import Unfreeze


class Unfreezing(pl.Callback):
    """Train each parameter of a model only from its group's share of the steps on.

    A parameter that is frozen has no gradient when the optimiser steps: so it gets no update, no weight decay and no
    momentum, and has no part in the norm by which gradients are clipped. What is frozen depends on the step alone,
    so that a run goes on after a kill as it would have gone on without. All parameters belong to the optimiser from
    the beginning.

    Raises `UsageError` for a pattern that matches no parameter, and when nothing would be trained at first.
    """

    def __init__(self, model: nn.Module, groups: Sequence[Unfreeze], steps: int):
        self.model = model
        self.begins = schedule(model, groups, steps)

    def trained(self, step: int) -> int:
        """How many numbers are trained at a step."""
        sizes = {name: weight.numel() for name, weight in self.model.named_parameters()}
        return sum(sizes[name] for name, begin in self.begins.items() if begin <= step)

    def stages(self) -> list[dict[str, int]]:
        """The steps at which something joins, with what is trained from there on."""
        moments = sorted({int(begin) for begin in self.begins.values() if begin < math.inf})
        return [{"step": step, "trained": self.trained(step)} for step in moments]

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        # Gradients that nobody needs cost time and memory. Several processes exchange all of them, so there they
        # are computed and thrown away below.
        if trainer.world_size == 1:
            for name, weight in self._scheduled():
                weight.requires_grad_(self.begins[name] <= trainer.global_step)

    def on_before_optimizer_step(self, trainer: pl.Trainer, *_: Any) -> None:  # comes before clipping
        for name, weight in self._scheduled():
            if self.begins[name] > trainer.global_step:
                weight.grad = None

    def _scheduled(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, weight) for name, weight in self.model.named_parameters() if name in self.begins]


def schedule(model: nn.Module, groups: Sequence[Unfreeze], steps: int) -> dict[str, float]:
    """The step at which each trainable parameter of a model begins to be trained; infinity for never.

    A pattern is the name of a parameter or of a module, with `*`, `?` and `[...]`; where several match, the
    earliest counts.
    """
    begins = {name: math.inf for name, weight in model.named_parameters() if weight.requires_grad}
    for group in groups:
        if not 0 <= group.at <= 1:
            raise UsageError(
                f"unfreeze: at = {group.at:g}: must be from 0 to 1", "it is a share of the run's steps"
            )
        for pattern in group.layers:
            found = [name for name in begins if _matches(name, pattern)]
            if not found:
                raise UsageError(
                    f"unfreeze: {pattern!r} matches no layer of the model", _known(begins, pattern)
                )
            for name in found:
                begins[name] = min(begins[name], round(group.at * steps))
    if groups and min(begins.values()) > 0:
        raise UsageError("unfreeze: nothing would be trained at first", "give one group at = 0")
    return begins


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def _known(names: Iterable[str], pattern: str) -> str:
    """A hint: the nearest module, or what the model is made of."""
    modules = {name.rsplit(".", cut)[0] for name in names for cut in range(name.count(".") + 1)}
    if near := nearest(pattern, sorted(modules)):
        return f"did you mean {near}?"
    return f"it has {', '.join(sorted({name.split('.')[0] for name in names}))}"
