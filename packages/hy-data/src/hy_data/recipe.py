"""A data recipe: which stages run in which order, with which options, and the tables of the steps that decide."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hy_core import options
from hy_core.errors import MissingError, UsageError
from hy_core.tables import bounded, from_table, parse_toml, read_toml

if TYPE_CHECKING:
    from hy_core.plugins import Plugins

FOLDER = Path(__file__).with_name("recipes")


@dataclass(frozen=True)
class EngineOptions:
    """How stages run; none of these changes a result."""

    executor: Literal["local", "ray"] = "local"
    address: str = ""  # of a Ray cluster; empty starts one on this machine
    workers: int = bounded(0, 0, 4096)  # CPU cores that are busy at most; 0: all cores
    gpus: int = bounded(-1, -1, 4096)  # GPUs; -1: those of this machine
    tries: int = bounded(2, 1, 100)  # how often a clip may kill its worker or hang before it has failed
    min_deadline: float = bounded(60.0, 0.1, 1e6)  # seconds that every stage has for a clip
    deadline_factor: float = bounded(20.0, 1, 1e6)  # times the usual seconds before a stage counts as hung
    start_seconds: float = bounded(600.0, 1, 1e6)  # seconds that a worker has to load its models
    clips_per_worker: int = bounded(1000, 1, 10**9)  # then the worker is replaced, against leaks
    memory_gb: float = bounded(4.0, 0.1, 4096)  # a worker whose memory is over this is replaced
    queue: int = bounded(64, 1, 10**6)  # clips that wait for a stage before the stages before it pause


@dataclass(frozen=True)
class SourceOptions:
    """What is read of the input."""

    max_download_gb: float = bounded(20.0, 0, 1e6)
    allow_private_addresses: bool = False
    timeout: float = bounded(60.0, 1, 1e5)  # seconds that a server may be silent


@dataclass(frozen=True)
class Recipe:
    """One run. `stages` run on all clips in this order, `finish` on those that a set keeps.

    `stage` has a table of options for each stage that needs some. `sets`, `duplicates`, `concepts` and `captions` are
    checked by the steps that read them.
    """

    stages: tuple[str, ...]
    name: str = "run"
    plugins: tuple[str, ...] = ()  # Python files with more stages, relative to the recipe
    finish: tuple[str, ...] = ()
    stage: dict[str, Any] = field(default_factory=dict)
    source: SourceOptions = field(default_factory=SourceOptions)
    engine: EngineOptions = field(default_factory=EngineOptions)
    sets: dict[str, Any] = field(default_factory=dict)
    duplicates: dict[str, Any] = field(default_factory=dict)
    concepts: dict[str, Any] = field(default_factory=dict)
    captions: dict[str, Any] = field(default_factory=dict)


def named() -> dict[str, Path]:
    """Return the recipes that come with hy-data, by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}


def load(name_or_path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe by its name or path; `overrides` are `key=value` with dots for tables.

    `MissingError` for no such recipe, `UsageError` naming the key for what doesn't fit.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = named().get(str(name_or_path), path)
    if not path.is_file():
        raise MissingError(
            f"no data recipe {str(name_or_path)!r}", f"give a TOML file, or one of {', '.join(named())}"
        )
    table = read_toml(path)
    table.setdefault("name", path.stem)
    if isinstance(files := table.get("plugins"), list):
        table["plugins"] = [
            str((path.parent / one).absolute()) if isinstance(one, str) and one.endswith(".py") else one
            for one in files
        ]
    for item in overrides:
        override(table, item)
    return parse(table, str(path))


def parse(table: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """Make a recipe of a table; `UsageError` for unknown keys, wrong types and a stage that comes twice."""
    recipe = from_table(Recipe, table, where)
    every = [*recipe.stages, *recipe.finish]
    if twice := [name for name in every if every.count(name) > 1]:
        raise UsageError(f"{where}: the stage {twice[0]!r} comes twice")
    for name in recipe.stage:
        if name not in every:
            near = options.nearest(name, every)
            raise UsageError(
                f"{where}: [stage.{name}] is for a stage that doesn't run",
                f"did you mean {near}?" if near else "add it to stages, or remove the table",
            )
        if not isinstance(recipe.stage[name], dict):
            raise UsageError(f"{where}: stage.{name} is not a table of options")
    return recipe


def override(table: dict[str, Any], item: str) -> None:
    """Set a value of a recipe's table from `key=value`, such as `stage.shots.min_seconds=1`."""
    key, equals, text = item.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"--set {item}: needs key=value", "for instance --set stage.shots.min_seconds=1")
    *parents, last = key.strip().split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise UsageError(f"--set {item}: {parent} is not a table")
    try:
        table[last] = parse_toml(f"x = {text}", f"--set {item}")["x"]
    except UsageError:  # a word without quotes
        table[last] = text


def load_plugins(recipe: Recipe) -> Plugins:
    """Return the installed plugins and those of a recipe, loaded; an installed one that is broken is left out."""
    from hy_core.plugins import Plugins

    plugins = Plugins()
    for name in plugins.found:
        plugins.examine(name)
    plugins.load(*recipe.plugins)
    return plugins


def to_toml(recipe: Recipe) -> str:
    """Return a recipe as TOML that `load` reads, with the values of all keys."""
    lines: list[str] = []
    _write_table(lines, (), {one.name: getattr(recipe, one.name) for one in fields(recipe)})
    return "\n".join(lines).strip() + "\n"


def _write_table(lines: list[str], keys: tuple[str, ...], table: Mapping[str, Any]) -> None:
    plain = {key: one for key, one in table.items() if not _is_table(one) and one is not None}
    if keys and (plain or not table):
        lines += ["", f"[{'.'.join(map(_key, keys))}]"]
    lines += [f"{_key(key)} = {_value(one)}" for key, one in plain.items()]
    for key, one in table.items():
        if _is_table(one):
            if is_dataclass(one):
                one = {part.name: getattr(one, part.name) for part in fields(one)}
            if one or keys:
                _write_table(lines, (*keys, key), one)


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping) or is_dataclass(value)


def _key(key: str) -> str:
    plain = key and all(char.isascii() and (char.isalnum() or char in "-_") for char in key)
    return key if plain else _text(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_key(key)} = {_value(one)}' for key, one in value.items())}}}"
    return _text(str(value))


def _text(text: str) -> str:
    import json

    return json.dumps(text).replace("\x7f", "\\u007f")
