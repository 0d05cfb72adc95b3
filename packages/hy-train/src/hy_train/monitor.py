"""What a run reaches: clips and tokens a second, use of the machine, and the time that it waits for data."""

from __future__ import annotations

import time
from typing import Any

import lightning.pytorch as pl
import torch
from hy_core.training import Objective

_SIZE = {"cpu": 768, "cuda": 4096}  # sides of the matrices whose product is timed


class Monitor(pl.Callback):
    """Logs rates since the last logged step, of all processes together.

    `samples_per_s`, `tokens_per_s`; `flops_utilisation`: operations of forward and backward passes a second, divided by
    those of a matrix product on this device in this precision; `data_wait`: the share of time spent on getting batches.
    """

    def __init__(self, objective: Objective[Any], precision: str) -> None:
        self.objective, self.precision = objective, precision
        self.peak = 0.0
        self.last: dict[str, float] = {}
        """The rates that were logged last."""
        self._since = self._began = self._ended = time.perf_counter()
        self._waited = self._flops = 0.0
        self._samples = self._tokens = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self.peak:
            self.peak = matrix_flops(
                pl_module.device, torch.bfloat16 if "bf16" in self.precision else torch.float32
            )
        self._ended = time.perf_counter()
        self._reset(self._ended)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._began = time.perf_counter()
        self._waited += self._began - self._ended

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        work = self.objective.workload(batch)
        self._samples, self._tokens = self._samples + work.samples, self._tokens + work.tokens
        self._flops += work.flops
        now = self._ended = time.perf_counter()
        ends = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if not ends or trainer.global_step % trainer.log_every_n_steps:  # type: ignore[attr-defined]
            return
        seconds, world = now - self._since, trainer.world_size
        self.last = {"samples_per_s": world * self._samples / seconds, "data_wait": self._waited / seconds}
        if self._tokens:
            self.last["tokens_per_s"] = world * self._tokens / seconds
        if self._flops:
            self.last["flops_utilisation"] = self._flops / seconds / self.peak
        pl_module.log_dict(self.last)
        self._reset(now)

    def _reset(self, now: float) -> None:
        self._since = now
        self._waited = self._flops = 0.0
        self._samples = self._tokens = 0


def matrix_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Return the operations a second of a product of two square matrices, the best of three."""
    size = _SIZE.get(device.type, 1024)
    a = torch.ones(size, size, device=device, dtype=dtype)

    def once() -> float:
        start = time.perf_counter()
        (a @ a)[0, 0].item()  # waits for the device
        return time.perf_counter() - start

    once()
    return 2 * size**3 / min(once() for _ in range(3))
