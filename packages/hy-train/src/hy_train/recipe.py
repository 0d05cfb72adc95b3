"""A recipe: what to train, on what, for how long. One TOML file says all of it."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Any

from hy_core.errors import MissingError, UsageError
from hy_core.plugins import Plugins
from hy_core.tables import bounded, from_table, parse_toml, read_toml


@dataclass(frozen=True)
class Optim:
    """The optimiser: Muon for matrices and convolutions, AdamW for the rest ("muon"), or AdamW alone ("adamw")."""

    name: str = "muon"
    lr: float = 3e-4  # AdamW's
    muon_lr: float = 2e-3  # Muon's; its update is scaled to AdamW's size (see optim.py)
    betas: tuple[float, ...] = (0.9, 0.99)
    eps: float = 1e-8
    weight_decay: float = 0.01
    warmup: int = 100  # steps from 0 to the full rate
    decay: str = "cosine"  # "cosine", "linear" or "constant" from there on
    min_lr_ratio: float = 0.05  # the rate at the last step, as a fraction of the full rate
    max_grad_norm: float = 1.0  # gradients are clipped to this norm; 0 clips none


@dataclass(frozen=True)
class Unfreeze:
    """Layers that join the training when the share `at` of the steps is done; see `hy_train.unfreeze`.

    Each of `layers` is the name of a parameter or a module of the model, with `*`, `?` and `[...]`.
    """

    layers: tuple[str, ...]
    at: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """One training run. The tables `model`, `data` and `options` are read by the objective that it names.

    `plugins` are those whose datasets and objectives the recipe uses; those of `[conditioning]` are loaded anyway.
    `init_from` is the folder or name of the model whose weights training starts from, "" for random weights.
    """

    objective: str
    steps: int = bounded(MISSING, 1, 10**9)
    batch: int = bounded(MISSING, 1, 10**6)
    name: str = "run"
    seed: int = bounded(0, 0, 2**63 - 1)
    plugins: tuple[str, ...] = ()
    init_from: str = ""
    optim: Optim = field(default_factory=Optim)
    unfreeze: tuple[Unfreeze, ...] = ()  # when which layers join; all from the beginning if empty
    ema: float = bounded(0.999, 0, 1)  # decay of the averaged weights; 0 keeps none
    accumulate: int = bounded(1, 1, 10**4)  # batches whose gradients are averaged in one step
    precision: str = "32-true"  # Lightning's names
    devices: int = bounded(1, 1, 4096)  # processes on each machine
    nodes: int = bounded(1, 1, 4096)  # machines; with several, start hy train by torchrun on each
    workers: int = bounded(0, 0, 256)  # processes that make batches; 0 makes them between steps
    threads: int = bounded(0, 0, 4096)  # CPU threads of each process; 0 leaves torch's choice
    save_every: int = bounded(200, 1, 10**9)  # steps between checkpoints from which a killed run resumes
    save_minutes: float = 5.0  # and at most this long
    keep_last: int = bounded(2, 1, 10**6)  # newest checkpoints that are kept
    keep_every: int = bounded(
        0, 0, 10**9
    )  # steps; of every so many a checkpoint is kept for good, 0 keeps none
    spike: float = bounded(
        10.0, 0, 10**6
    )  # a loss over so many times the median of the last is skipped; 0: none is
    loggers: tuple[str, ...] = ("csv", "tensorboard")  # also wandb, mlflow, comet, neptune, or module:Class
    logger_options: dict[str, Any] = field(default_factory=dict)  # a table of arguments for each logger
    eval_every: int = bounded(
        0, 0, 10**9
    )  # steps between the objective's own measurements; 0 measures at the end
    model: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    conditioning: dict[str, Any] = field(
        default_factory=dict
    )  # a table for each plugin that conditions the DiT


def builtin() -> dict[str, Path]:
    """Return the recipes that come with hy-train and with the other installed plugins, by name.

    A plugin that is broken or switched off brings none; `hy plugins` says why.
    """
    plugins = Plugins()
    for name in plugins.found:
        plugins.examine(name)
    return dict(plugins.recipes())


def load(name_or_path: str, overrides: list[str] | tuple[str, ...] = ()) -> Recipe:
    """Read a recipe by its name or path; `overrides` are `key=value` with dots for tables.

    Raises `MissingError` when there is no such recipe and `UsageError` for what doesn't fit, naming the key.
    """
    path, known = Path(name_or_path), {}
    if path.suffix != ".toml":
        known = builtin()
        path = known.get(name_or_path, path)
    if not path.is_file():
        names = ", ".join(known or builtin())
        raise MissingError(f"no recipe {name_or_path!r}", f"give a TOML file, or one of {names}")
    table = read_toml(path)
    table.setdefault("name", path.stem)
    if isinstance(plugins := table.get("plugins"), list):  # files are relative to the recipe's folder
        table["plugins"] = [beside_recipe(path, one) for one in plugins]
    for item in overrides:
        _override(table, item)
    return parse(table, str(path))


def beside_recipe(path: Path, plugin: Any) -> Any:
    """A plugin of a recipe; the path of a Python file is taken relative to the recipe's folder."""
    return str(path.parent / plugin) if isinstance(plugin, str) and plugin.endswith(".py") else plugin


def parse(table: dict[str, Any], where: str = "recipe") -> Recipe:
    """Make a recipe of a table, checking every key and type."""
    return from_table(Recipe, table, where)


def _override(table: dict[str, Any], item: str) -> None:
    key, equals, text = item.partition("=")
    if not equals:
        raise UsageError(f"--set {item}: needs key=value", "for instance --set optim.lr=1e-4")
    *parents, last = key.strip().split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise UsageError(f"--set {item}: {parent} is not a table")
    try:
        table[last] = parse_toml(f"x = {text}", f"--set {item}")["x"]
    except UsageError:  # a word without quotes
        table[last] = text
