"""Where layers come from: TOML files, presets, the user's own file, the environment."""

from __future__ import annotations

import difflib
import os
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hy_core import options
from hy_core.errors import MissingError, UsageError
from hy_core.settings.core import CORE, WORDS
from hy_core.settings.layers import Layer, variable
from hy_core.tables import read_toml, shown


def read_file(path: Path, origin: str | None = None, strict: bool = True) -> Layer:
    """A TOML file as a layer; `UsageError` names the file and the line of what is wrong."""
    return as_layer(read_toml(path), origin or str(path), path.expanduser().resolve().parent, strict)


def as_layer(values: Mapping[str, Any], origin: str, base: Path | None, strict: bool = True) -> Layer:
    """Plain values (a TOML file, a row of a batch) as a layer."""
    requires, plugins, prompt = values.get("requires", []), values.get("plugins", []), values.get("prompt")
    for key, words in (("requires", requires), ("plugins", plugins)):
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise UsageError(f"{origin}: {key}: needs a list of words")
    if prompt is not None and not isinstance(prompt, str):
        raise UsageError(f"{origin}: prompt: needs text")
    check_requires(requires, origin)
    local = [str(base / name) if base and name.endswith(".py") else name for name in plugins]
    rest = {key: value for key, value in values.items() if key not in WORDS}
    return Layer(
        origin,
        {key: value for key, value in rest.items() if not isinstance(value, dict)},
        {key: value for key, value in rest.items() if isinstance(value, dict)},
        tuple(local),
        prompt,
        base,
        strict=strict,
    )


def check_requires(requires: Iterable[str], origin: str) -> None:
    """Raise `MissingError` naming the first distribution that is absent or of the wrong version."""
    if not requires:
        return
    from importlib.metadata import PackageNotFoundError, version

    from packaging.requirements import InvalidRequirement, Requirement

    for line in requires:
        try:
            need = Requirement(line)
        except InvalidRequirement:
            raise UsageError(f'{origin}: requires: {shown(line)} is not like "hy-dawn>=0.1"') from None
        hint = f"hy plugins install {shlex.quote(str(need))}"
        try:
            have = version(need.name)
        except PackageNotFoundError:
            raise MissingError(
                f"{origin} requires {need.name}{need.specifier}, which is not installed", hint
            ) from None
        if not need.specifier.contains(have, prereleases=True):
            raise MissingError(
                f"{origin} requires {need.name}{need.specifier}, but {need.name} {have} is installed", hint
            )


def environment(kinds: Mapping[str, type], environ: Mapping[str, str] | None = None) -> Layer:
    """The `HY_*` variables that are settings; empty ones count as unset."""
    environ = os.environ if environ is None else environ

    def found(keys: Iterable[str], table: str | None = None) -> dict[str, str]:
        return {key: environ[variable(key, table)] for key in keys if environ.get(variable(key, table))}

    tables = {name: found([one.name for one in options.fields(kind)], name) for name, kind in kinds.items()}
    return Layer("environment", found(CORE), {n: t for n, t in tables.items() if t}, text=True)


def user_file() -> Path:
    """The user's own config.toml (it need not exist)."""
    import click

    return Path(click.get_app_dir("hy")) / "config.toml"


def user_layer() -> Layer | None:
    """The user's config.toml, if there is one; tables of plugins not in use are fine there."""
    path = user_file()
    return read_file(path, strict=False) if path.is_file() else None


def preset_layer(name: str, known: Mapping[str, Path]) -> Layer:
    """A preset by name, among those that the core and the plugins registered."""
    if name not in known:
        near = difflib.get_close_matches(name, known, 1, 0.5)
        hint = f"did you mean {near[0]}?" if near else f"there is: {', '.join(known)}"
        raise UsageError(f"no preset {name!r}", hint)
    return read_file(known[name], f"preset {name}")
