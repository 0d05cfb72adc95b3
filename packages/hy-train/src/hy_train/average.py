"""The exponential moving average of the weights, which is what is measured and exported."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import torch
from torch import nn


class Average(pl.Callback):
    """Keep an average of a model's weights, or of those with `names`, on the device of each.

    The decay grows from 0 as (1 + step) / (10 + step) up to the recipe's, so that early weights are forgotten. With a
    decay of 0 nothing is kept: the weights themselves take its place.
    """

    def __init__(self, model: nn.Module, decay: float, names: Collection[str] | None = None) -> None:
        self.model, self.decay, self.names = model, decay, names
        self.average: dict[str, torch.Tensor] = {}

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self.decay:
            self.average = {}
            return
        weights = self._weights()
        if not self.average:
            self.average = {k: v.detach().clone() for k, v in weights.items()}
        # A checkpoint is read on the CPU.
        self.average = {k: v.to(weights[k].device) for k, v in self.average.items()}

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self.decay or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        decay = min(self.decay, (1 + trainer.global_step) / (10 + trainer.global_step))
        weights = self._weights()
        names = [k for k, v in weights.items() if v.is_floating_point()]
        torch._foreach_lerp_([self.average[k] for k in names], [weights[k] for k in names], 1 - decay)

    def _weights(self) -> dict[str, torch.Tensor]:
        """The tensors, of any shape, of which averages are kept."""
        state = self.model.state_dict()
        return state if self.names is None else {name: state[name] for name in state if name in self.names}

    def state_dict(self) -> dict[str, Any]:
        return {"average": self.average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.average = {k: v.clone() for k, v in state["average"].items()}

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the averaged weights in place for a while, for measuring and exporting."""
        training, average = self.model.training, self.average
        weights = {k: v.detach().clone() for k, v in self._weights().items()} if average else {}
        if average:
            self.model.load_state_dict(average, strict=self.names is None)
        self.model.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            if average:
                self.model.load_state_dict(weights, strict=self.names is None)
            self.model.train(training)
