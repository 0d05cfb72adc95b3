"""Run a recipe: train, continue after a kill, measure, export."""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch
from hy_core.dit import Port
from hy_core.errors import HyError, UsageError
from hy_core.files import write_json
from hy_core.training import Objective
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.strategies import DDPStrategy

from hy_train.average import Average
from hy_train.checkpoints import LAST, AtomicCheckpointIO, Saver, kept, newest
from hy_train.exclusive import exclusive
from hy_train.guard import ATTEMPTS, BadStepError
from hy_train.launch import check_world, is_started, launch, lost_process_in_one_line
from hy_train.loggers import make_loggers
from hy_train.module import TrainModule
from hy_train.monitor import Monitor
from hy_train.planning import check_plan, plan
from hy_train.progress import StepBar
from hy_train.recipe import Recipe
from hy_train.rehearsal import Rehearsal
from hy_train.unfreeze import Unfreezing

EVENTS = "events.jsonl"
_PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true")


def run(
    recipe: Recipe, objective: Objective[Any], folder: Path, minutes: float | None = None, quiet: bool = False
) -> dict[str, Any]:
    """Train in `folder`, from its last checkpoint where there is one, and return what was measured at the end.

    With `devices` above 1 this process starts that many, waits for them and returns nothing, as do all but the first
    of them. `prepare` is done by one process at a time, so that the others find its caches filled.

    A step whose loss or gradient is no number, or jumps, is undone: the run goes back to the last good checkpoint and
    leaves out the batch. SIGINT and SIGTERM save and end the run after the step in hand; the report then has `stopped`.
    `minutes` ends this part of the run early. The exported weights are in `folder/export`. Raises `HyError` when
    the loss stays bad, and for a full disk or a damaged file, with the last good checkpoint in place.
    """
    check(recipe, objective)
    check_world(recipe)
    check_plan(plan(recipe, objective, timed=False))
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # no greetings, no advertisements
    warnings.filterwarnings("ignore", module="lightning.*")
    folder.mkdir(parents=True, exist_ok=True)
    _same_recipe(recipe, folder)
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    unfreezing = [Unfreezing(objective.model, recipe.unfreeze, recipe.steps)] if recipe.unfreeze else []
    with exclusive(folder):
        objective.prepare()
    if recipe.devices > 1 and not is_started():
        return {"stopped": "signal"} if launch(recipe.devices) else {}
    module = TrainModule(objective, recipe)
    average = Average(objective.model, recipe.ema, objective.trained)
    saver = Saver(recipe, folder, minutes)
    callbacks = [
        *([StepBar(recipe.steps)] if not quiet else []),
        Rehearsal(objective),
        average,
        *unfreezing,
        Monitor(objective, recipe.precision),
        *([Measure(objective, recipe.eval_every, average)] if recipe.eval_every else []),
        saver,
    ]
    began = time.monotonic()
    with saver.signals(), exclusive(folder, wait=False, name=".run.lock"):
        trainer = _train(recipe, module, callbacks, folder)
        saver.save(trainer)
        if not trainer.is_global_zero:
            return {}
        report: dict[str, Any] = {"step": trainer.global_step, "seconds": round(time.monotonic() - began, 1)}
        if saver.signal is not None:
            return {**report, "stopped": saver.signal.name}
        objective.step = trainer.global_step
        with average.in_place():
            report |= objective.evaluate()
            objective.export(folder / "export")
    write_json(folder / "report.json", report)
    return report


def check(recipe: Recipe, objective: Objective[Any]) -> None:
    """Raise `UsageError` for values that can't work on this machine or with this objective."""
    if objective.critic is not None and recipe.precision.startswith("16"):
        raise UsageError(f"precision = {recipe.precision!r}: not in adversarial training", "use bf16-mixed")
    if recipe.precision not in _PRECISIONS:
        raise UsageError(f"precision = {recipe.precision!r}: unknown", f"use {', '.join(_PRECISIONS)}")
    if objective.critic is not None and recipe.accumulate > 1:
        raise UsageError(f"accumulate = {recipe.accumulate}: not in adversarial training", "raise batch")
    if recipe.precision == "16-mixed" and not torch.cuda.is_available():
        raise UsageError("precision = '16-mixed': needs a GPU", "use bf16-mixed or 32-true")
    if torch.cuda.is_available() and recipe.devices > torch.cuda.device_count():
        raise UsageError(
            f"devices = {recipe.devices}, but this machine has {torch.cuda.device_count()} GPUs",
            f"--set devices={torch.cuda.device_count()}",
        )
    if recipe.nodes > 1 and not is_started():
        raise UsageError(
            f"nodes = {recipe.nodes}: hy train starts processes on one machine only",
            f"torchrun --nnodes {recipe.nodes} --nproc-per-node {recipe.devices} on each machine",
        )


def _train(recipe: Recipe, module: TrainModule, callbacks: list[Any], folder: Path) -> pl.Trainer:
    """Train to the end of the run or of its time, going back where a step can't be taken."""
    undone: list[int] = []
    while True:
        trainer = _trainer(recipe, module.objective, callbacks, folder)
        start = newest(folder)
        if undone and start is not None:
            # A checkpoint from shortly before the failure may be where it comes from.
            near = [one for one in undone[:-1] if undone[-1] - one <= ATTEMPTS + recipe.save_every]
            start = [start, *reversed(kept(folder)[:-1])][: len(near) + 1][-1]
        try:
            with lost_process_in_one_line(recipe.devices * recipe.nodes):
                trainer.fit(module, ckpt_path=start, weights_only=True)
            return trainer
        except BadStepError as error:
            undone.append(error.number)
            near = [one for one in undone if error.number - one <= ATTEMPTS + recipe.save_every]
            if newest(folder) is None or len(near) > ATTEMPTS:
                raise HyError(
                    error.reason,
                    "lower optim.lr: --set optim.lr=... works on a resume; the last checkpoint is kept",
                ) from None
            module.skipped.add(error.number)
            if trainer.is_global_zero:
                _tell(folder, error)


def _trainer(recipe: Recipe, objective: Objective[Any], callbacks: list[Any], folder: Path) -> pl.Trainer:
    try:
        return pl.Trainer(
            accelerator="auto",
            devices=recipe.devices,
            num_nodes=recipe.nodes,
            strategy=_strategy(recipe, objective),
            precision=cast(Any, recipe.precision),
            max_steps=recipe.steps,
            accumulate_grad_batches=recipe.accumulate,
            max_epochs=-1,
            callbacks=callbacks,
            plugins=[AtomicCheckpointIO()],
            logger=make_loggers(recipe, folder),
            log_every_n_steps=max(1, min(10, recipe.steps // 5)),
            enable_checkpointing=False,
            enable_progress_bar=any(isinstance(one, StepBar) for one in callbacks),
            enable_model_summary=False,
            use_distributed_sampler=False,
            default_root_dir=folder,
        )
    except (MisconfigurationException, ValueError) as error:
        raise UsageError(
            f"the recipe doesn't fit this machine: {' '.join(str(error).split())[:150]}"
        ) from None


def _tell(folder: Path, error: BadStepError) -> None:
    line = f"{error.reason}: back to the last good checkpoint, batch {error.number} is left out"
    print(line, file=sys.stderr)
    with open(folder / EVENTS, "a", encoding="utf-8") as log:
        log.write(json.dumps({"time": round(time.time()), "event": "skipped", "line": line}) + "\n")


def _strategy(recipe: Recipe, objective: Objective[Any]) -> DDPStrategy | str:
    """How several processes work together; "auto" for one."""
    if recipe.devices * recipe.nodes == 1:
        return "auto"
    # In each half of an adversarial step the other half's network has no gradients, nor have a plugin's modules in a
    # batch that the plugin doesn't condition.
    backend = None if torch.cuda.is_available() else "gloo"
    partly = objective.critic is not None or any(
        isinstance(module, Port) and len(module) for module in objective.model.modules()
    )
    return DDPStrategy(process_group_backend=backend, find_unused_parameters=partly)


class Measure(pl.Callback):
    """Measure the averaged weights while training goes on."""

    def __init__(self, objective: Objective[Any], every: int, average: Average) -> None:
        self.objective, self.every, self.average = objective, every, average

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches or trainer.global_step % self.every:
            return
        if not trainer.is_global_zero:
            return
        self.objective.step = trainer.global_step
        with self.average.in_place():
            measured = self.objective.evaluate()
            self.objective.export(self.objective.folder / "export")
        for logger in trainer.loggers:
            logger.log_metrics(
                {f"eval/{name}": value for name, value in measured.items()}, trainer.global_step
            )
        line = json.dumps({"step": trainer.global_step, "time": round(time.time()), **measured})
        with open(self.objective.folder / "measured.jsonl", "a", encoding="utf-8") as log:
            log.write(line + "\n")


def _same_recipe(recipe: Recipe, folder: Path) -> None:
    """Refuse to continue in a folder whose model or optimiser was another one: its state would not fit."""
    path = folder / "recipe.json"
    mine = {"objective": recipe.objective, "model": recipe.model, "optimiser": recipe.optim.name}
    if path.exists() and (folder / LAST).exists():
        theirs = json.loads(path.read_text(encoding="utf-8"))
        ours = json.loads(json.dumps(mine))
        if {key: ours.get(key) for key in theirs} != theirs:
            what = "optimiser" if theirs.get("optimiser", recipe.optim.name) != recipe.optim.name else "model"
            raise UsageError(f"{folder} holds a run of another {what}", "choose another --out, or remove it")
    write_json(path, mine)
