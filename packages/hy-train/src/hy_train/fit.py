"""Run a recipe: train, go on after a kill, measure, export."""

from __future__ import annotations

import itertools
import json
import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch
from hy_core.dit import Port
from hy_core.errors import HyError, UsageError
from hy_core.files import write_json
from hy_core.training import Objective
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import DDPStrategy

from hy_train.exclusive import exclusive
from hy_train.module import Average, TrainModule, averaged_weights, train_module
from hy_train.recipe import Recipe
from hy_train.unfreeze import Unfreezing

LAST = "last.ckpt"


def run(
    recipe: Recipe, objective: Objective[Any], folder: Path, minutes: float | None = None, quiet: bool = False
) -> dict[str, Any]:
    """Train in `folder`, from its last checkpoint where there is one, and return what was measured at the end.

    Ranks other than the first return nothing. They start when the first is done with `prepare` (Lightning runs the
    program once more for each of them), and so find its caches filled.

    `minutes` ends the run early, to be gone on with later. The exported weights are in `folder/export`. Raises
    `HyError` when the loss stops being a number.
    """
    if objective.critic is not None and recipe.precision.startswith("16"):
        raise UsageError(f"precision = {recipe.precision!r}: not in adversarial training", "use bf16-mixed")
    if objective.critic is not None and recipe.accumulate > 1:
        raise UsageError(f"accumulate = {recipe.accumulate}: not in adversarial training", "raise batch")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # no greetings, no advertisements
    warnings.filterwarnings("ignore", module="lightning.*")
    folder.mkdir(parents=True, exist_ok=True)
    _same_recipe(recipe, folder)
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    unfreezing = [Unfreezing(objective.model, recipe.unfreeze, recipe.steps)] if recipe.unfreeze else []
    with exclusive(folder):
        objective.prepare()
    average = Average(recipe.ema)
    module = TrainModule(objective, recipe)
    keep: dict[str, Any] = {
        "dirpath": folder,
        "save_last": False,
        "save_top_k": 1,
        "filename": "last",
        "enable_version_counter": False,
    }
    trainer = pl.Trainer(
        accelerator="auto",
        devices=recipe.devices,
        strategy=_strategy(recipe, objective),
        precision=cast(Any, recipe.precision),  # Lightning checks it
        max_steps=recipe.steps,
        accumulate_grad_batches=recipe.accumulate,
        max_epochs=-1,
        max_time=timedelta(minutes=minutes) if minutes else None,
        gradient_clip_val=recipe.optim.max_grad_norm or None
        if objective.critic is None
        else None,  # else the module does
        callbacks=[
            average,
            *unfreezing,
            ModelCheckpoint(every_n_train_steps=recipe.save_every, **keep),
            ModelCheckpoint(train_time_interval=timedelta(minutes=recipe.save_minutes), **keep),
            *([_Measure(recipe.eval_every, average)] if recipe.eval_every else []),
        ],
        logger=CSVLogger(folder, name="", version=_log(folder)),
        log_every_n_steps=10,
        enable_progress_bar=not quiet,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
    )
    last = folder / LAST
    began = time.monotonic()
    try:
        trainer.fit(module, ckpt_path=last if last.exists() else None, weights_only=True)
    except FloatingPointError as error:
        raise HyError(str(error), "lower optim.lr; the last checkpoint is kept") from None
    trainer.save_checkpoint(last)
    if not trainer.is_global_zero:
        return {}
    report: dict[str, Any] = {"step": trainer.global_step, "seconds": round(time.monotonic() - began, 1)}
    objective.step = trainer.global_step
    with averaged(module, average):
        report |= objective.evaluate()
        objective.export(folder / "export")
    write_json(folder / "report.json", report)
    return report


def _log(folder: Path) -> str:
    """Where this part of a run logs: one that goes on doesn't write over what it has said before."""
    if not (folder / LAST).exists():
        return "log"
    names = ("log" if number == 1 else f"log-{number}" for number in itertools.count(1))
    return next(name for name in names if not (folder / name / "metrics.csv").exists())


def _strategy(recipe: Recipe, objective: Objective[Any]) -> DDPStrategy | str:
    """How several processes work together; "auto" for one."""
    if recipe.devices == 1:
        return "auto"
    # In each half of an adversarial step the other half's network has no gradients, nor have a plugin's modules in a
    # batch that the plugin doesn't condition.
    backend = None if torch.cuda.is_available() else "gloo"
    partly = objective.critic is not None or any(
        isinstance(module, Port) and len(module) for module in objective.model.modules()
    )
    return DDPStrategy(process_group_backend=backend, find_unused_parameters=partly)


@contextmanager
def averaged(module: TrainModule, average: Average) -> Iterator[None]:
    """Put the averaged weights in place for a while."""
    weights = {k: v.detach().clone() for k, v in averaged_weights(module).items()}
    training = module.model.training
    module.model.load_state_dict(average.average, strict=module.strict_loading)
    module.model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.model.load_state_dict(weights, strict=module.strict_loading)
        module.model.train(training)


class _Measure(pl.Callback):
    """Measure the averaged weights while training goes on."""

    def __init__(self, every: int, average: Average) -> None:
        self.every, self.average = every, average

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        module = train_module(pl_module)
        if (batch_idx + 1) % module.recipe.accumulate or trainer.global_step % self.every:
            return
        if not trainer.is_global_zero:
            return
        module.objective.step = trainer.global_step
        with averaged(module, self.average):
            measured = module.objective.evaluate()
            module.objective.export(module.objective.folder / "export")
        line = json.dumps({"step": trainer.global_step, "time": round(time.time()), **measured})
        with open(module.objective.folder / "measured.jsonl", "a", encoding="utf-8") as log:
            log.write(line + "\n")


def _same_recipe(recipe: Recipe, folder: Path) -> None:
    """Refuse to go on in a folder whose model was another one: its weights would not fit."""
    path = folder / "recipe.json"
    mine = {"objective": recipe.objective, "model": recipe.model}
    if path.exists() and (folder / LAST).exists():
        theirs = json.loads(path.read_text(encoding="utf-8"))
        if theirs != json.loads(json.dumps(mine)):
            raise UsageError(f"{folder} holds a run of another model", "choose another --out, or remove it")
    write_json(path, mine)
