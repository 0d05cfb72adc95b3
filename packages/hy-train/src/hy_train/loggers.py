"""Where a run logs: TensorBoard and CSV files in its folder, or any logger of Lightning."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from hy_core.errors import MissingError, UsageError
from hy_core.imports import import_target
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from hy_train.checkpoints import LAST
from hy_train.recipe import Recipe

_OTHERS = {
    "wandb": "lightning.pytorch.loggers:WandbLogger",
    "mlflow": "lightning.pytorch.loggers:MLFlowLogger",
    "comet": "lightning.pytorch.loggers:CometLogger",
    "neptune": "lightning.pytorch.loggers:NeptuneLogger",
}


def make_loggers(recipe: Recipe, folder: Path) -> list[Logger]:
    """Return the loggers of a recipe; `UsageError` for an unknown one, `MissingError` without its package."""
    unused = sorted(set(recipe.logger_options) - set(recipe.loggers))
    if unused:
        raise UsageError(f"[logger_options.{unused[0]}]: no logger of the recipe has this name")
    part = log_folder(folder)
    return [
        _make(name, dict(recipe.logger_options.get(name, {})), recipe, folder, part)
        for name in recipe.loggers
    ]


def log_folder(folder: Path) -> str:
    """Return where this part of a run logs: a continued run doesn't overwrite what was logged before."""
    if not (folder / LAST).exists():
        return "log"
    names = ("log" if number == 1 else f"log-{number}" for number in itertools.count(1))
    return next(name for name in names if not (folder / name).exists())


def _make(name: str, options: dict[str, Any], recipe: Recipe, folder: Path, part: str) -> Logger:
    label = f"loggers: {name!r}"
    try:
        if name == "csv":
            return CSVLogger(folder, name="", version=part, **options)
        if name == "tensorboard":
            return TensorBoardLogger(folder, name="", version=part, default_hp_metric=False, **options)
        cls = import_target(name, label, _OTHERS)
        found: Logger = cls(**({"save_dir": str(folder)} if name == "wandb" else {}), **options)
        return found
    except ModuleNotFoundError as error:
        raise MissingError(f"{label}: {' '.join(str(error).split())[:120]}", f"pip install {name}") from None
    except TypeError as error:
        raise UsageError(f"[logger_options.{name}]: {' '.join(str(error).split())[:120]}") from None
