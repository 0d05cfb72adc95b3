"""The progress bar of a run, which counts the steps of all its parts."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class StepBar(ProgressBar):
    """Steps done of all, the time that is left, and what the step logs for the bar; on stderr."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps, self._task = steps, TaskID(0)
        self._bar: Progress | None = None

    def disable(self) -> None:
        """Nothing to do: only the first process has a bar."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        self._bar = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task("", total=self.steps, completed=trainer.global_step)
        self._bar.start()

    @property
    def completed(self) -> float:
        """The steps that the bar shows as done."""
        return self._bar.tasks[0].completed if self._bar else 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._bar:
            shown = {k: v for k, v in self.get_metrics(trainer, pl_module).items() if k != "v_num"}
            words = " ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items())
            self._bar.update(self._task, completed=trainer.global_step, description=words)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._bar:
            self._bar.stop()
