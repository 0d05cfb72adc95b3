"""The largest batch is tried before the first step, so that a run that doesn't fit fails at once."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from hy_core.errors import MemoryLimitError, is_out_of_memory
from hy_core.training import Objective


class Rehearsal(pl.Callback):
    """Runs the forward and backward pass of `Objective.largest_batch`; weights and gradients stay as they were.

    `MemoryLimitError` if it doesn't fit into memory.
    """

    def __init__(self, objective: Objective[Any]) -> None:
        self.objective = objective
        self.done = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.done or self.objective.critic is not None:
            return
        self.done = True
        batch = self.objective.largest_batch()
        if batch is None:
            return
        generator = torch.Generator(pl_module.device).manual_seed(0)
        try:
            batch = trainer.strategy.batch_to_device(batch, pl_module.device, 0)
            with trainer.precision_plugin.train_step_context():
                loss, _ = self.objective.loss(batch, generator)
            loss.backward()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise MemoryLimitError(
                f"the largest batch of this recipe doesn't fit into memory ({_shape(batch)})",
                "lower the bucket's batch, or batch with accumulate",
            ) from None
        finally:
            self.objective.model.zero_grad(set_to_none=True)


def _shape(batch: Any) -> str:
    latents = getattr(batch, "latents", batch)
    return f"latents {list(latents.shape)}" if isinstance(latents, torch.Tensor) else "of unknown shape"
