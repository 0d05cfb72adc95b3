"""Checkpoints of a run: whole or not at all, several by rule, and the moments at which they are written."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from hy_core.errors import HyError
from hy_core.files import atomic
from lightning.pytorch.plugins.io import TorchCheckpointIO

from hy_train.recipe import Recipe

LAST = "last.ckpt"
KEPT = "checkpoints"
PARENT = "HY_TRAIN_PARENT"
"""Environment variable of processes that `hy train` started: the id of the process that waits for them."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its name, flushes it, and renames it: a killed run leaves the one before."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint; `HyError`, in one line, for a full disk, which leaves the older file as it is."""
        path = Path(path)
        try:
            with atomic(path) as temporary, open(temporary, "wb") as file:
                torch.save(checkpoint, file)
        except RuntimeError as error:  # torch's writer hides the system's error
            raise HyError(
                f"cannot write {path}: {' '.join(str(error).split())[:100]}",
                "free some space; the last one is kept",
            ) from None


class Saver(pl.Callback):
    """Writes checkpoints at the ends of steps, and ends the run in time or at a signal.

    `last.ckpt` is the newest. The newest `keep_last` and those of every `keep_every`-th step are in `checkpoints/` too,
    as links. Nothing of this is in a checkpoint, so that `minutes` count from the start of each part of a run.
    """

    def __init__(self, recipe: Recipe, folder: Path, minutes: float | None) -> None:
        self.recipe, self.folder, self.minutes = recipe, folder, minutes
        self.signal: signal.Signals | None = None
        self.began = time.monotonic()
        self._saved = self.began
        self._before: dict[signal.Signals, Any] = {}

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Within the block the first SIGINT or SIGTERM ends the run after the step in hand; a second one at once."""
        try:
            self._before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
            self._install()
        except ValueError:  # not the main thread
            self._before = {}
            yield
            return
        try:
            yield
        finally:
            self._restore()

    def _install(self) -> None:
        for number in self._before:
            signal.signal(number, self._note)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: Any) -> None:
        self.signal = signal.Signals(number)
        self._restore()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.signal is None:  # Lightning put a handler before this one, which ends the run without saving
            self._install()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % self.recipe.accumulate:
            return
        now = time.monotonic()
        parent = int(os.environ.get(PARENT, "0"))
        ends = self.signal is not None or (parent and os.getppid() != parent)
        ends = bool(ends or (self.minutes and now - self.began > 60 * self.minutes))
        due = trainer.global_step % self.recipe.save_every == 0
        due = due or now - self._saved > 60 * self.recipe.save_minutes
        if trainer.world_size > 1:  # clocks and signals of processes differ
            flags = torch.tensor([float(ends), float(due)], device=pl_module.device)
            ends, due = (bool(one) for one in trainer.strategy.reduce(flags, reduce_op="max"))
        if due or ends:
            self.save(trainer)
        if ends:
            trainer.should_stop = True

    def save(self, trainer: pl.Trainer) -> None:
        """Write a checkpoint now, in all processes."""
        trainer.save_checkpoint(self.folder / LAST)
        self._saved = time.monotonic()
        if trainer.is_global_zero:
            self._keep(trainer.global_step)

    def _keep(self, step: int) -> None:
        folder = self.folder / KEPT
        folder.mkdir(exist_ok=True)
        name = folder / f"step-{step:09d}.ckpt"
        name.unlink(missing_ok=True)
        try:
            os.link(self.folder / LAST, name)
        except OSError:  # a file system without hard links keeps the newest alone
            return
        for old in kept(self.folder)[: -self.recipe.keep_last or None]:
            if not (self.recipe.keep_every and _step(old) % self.recipe.keep_every == 0):
                old.unlink(missing_ok=True)


def kept(folder: Path) -> list[Path]:
    """Return the checkpoints of a run by step, without `last.ckpt`."""
    return sorted((folder / KEPT).glob("step-*.ckpt"))


def newest(folder: Path) -> Path | None:
    """Return the checkpoint that a run continues at, None for a new run."""
    return folder / LAST if (folder / LAST).exists() else None


def _step(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))
