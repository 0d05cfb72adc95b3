"""Layers of settings, merged key by key: flags, environment, files, presets; each value knows its origin.

A key is the same word everywhere: `--steps`, `HY_STEPS`, `steps =` in TOML; for the option
`curve` of a plugin `dawn` `--dawn-curve`, `HY_DAWN_CURVE`, `[dawn] curve =`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from hy_core import options
from hy_core.errors import UsageError
from hy_core.settings.core import CORE, WORDS
from hy_core.settings.paths import beside, rebased


def variable(key: str, table: str | None = None) -> str:
    """The environment variable of a key: HY_STEPS, HY_I2V_IMAGE."""
    return "_".join(["HY", *([table] if table else []), key]).upper().replace("-", "_")


class Value(NamedTuple):
    """A value and where it came from."""

    value: Any
    origin: str


@dataclass(frozen=True)
class Layer:
    """One source of values: `core` by setting, `tables` by plugin, and how its keys are called in errors.

    `base` is the folder that relative paths mean; `text` says that all values are strings (environment).
    """

    origin: str
    core: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    plugins: tuple[str, ...] = ()
    prompt: str | None = None
    base: Path | None = None
    text: bool = False
    strict: bool = True

    def label(self, key: str, table: str | None = None) -> str:
        """What an error calls a key of this layer."""
        if self.origin == "flags":
            return options.flag(table, key) if table else f"--{key.replace('_', '-')}"
        if self.text:
            return variable(key, table)
        return f"{self.origin}: [{table}] {key}" if table else f"{self.origin}: {key}"

    def origin_of(self, key: str, table: str | None = None) -> str:
        """Where a value came from, in the words of `hy config show`."""
        return self.label(key, table) if self.origin == "flags" or self.text else self.origin


class Settings:
    """Layers, the strongest first, merged key by key."""

    def __init__(self, layers: Iterable[Layer]) -> None:
        self.layers = list(layers)

    def above(self, layer: Layer) -> Settings:
        """The same with one stronger layer on top."""
        return Settings([layer, *self.layers])

    @property
    def prompt(self) -> str | None:
        """The prompt that a file gives, if any."""
        return next((layer.prompt for layer in self.layers if layer.prompt is not None), None)

    @property
    def plugins(self) -> list[str]:
        """The plugins named, in order, each once."""
        return list(dict.fromkeys(name for layer in self.layers for name in layer.plugins))

    def where(self, key: str) -> int | None:
        """The index of the strongest layer that sets a core key."""
        return next((at for at, layer in enumerate(self.layers) if key in layer.core), None)

    def core(self, key: str) -> Value:
        """A core value: checked, paths made absolute, with its origin."""
        one, at = CORE[key], self.where(key)
        if at is None:
            return Value(one.default, "default")
        layer = self.layers[at]
        value = one.check(layer.core[key], layer.label(key), text=layer.text)
        if layer.base is not None and key in ("output", "model", "weights"):
            value = beside(layer.base, value, layer.label(key), must_exist=key == "model")
        if layer.base is not None and key == "lora" and value:
            value = ",".join(
                str(beside(layer.base, part.strip(), layer.label(key))) for part in value.split(",")
            )
        return Value(value, layer.origin_of(key))

    def options(self, name: str, kind: type) -> tuple[Any, dict[str, Value]]:
        """A plugin's frozen options, and each field with its origin."""
        values, labels, origins = {}, {}, {}
        for one in options.fields(kind):
            for layer in self.layers:
                table = layer.tables.get(name, {})
                if one.name not in table:
                    continue
                label = layer.label(one.name, name)
                value = one.check(table[one.name], label, text=layer.text)
                if layer.base is not None:
                    value = rebased(value, layer.base)
                values[one.name], labels[one.name] = value, label
                origins[one.name] = layer.origin_of(one.name, name)
                break
        made: Any = options.parse(name, kind, values, labels)
        shown = options.plain(made)
        return made, {key: Value(shown[key], origins.get(key, "default")) for key in shown}

    def check(self, kinds: Mapping[str, type], known: Iterable[str], unread: Iterable[str] = ()) -> None:
        """Refuse unknown keys: `kinds` are the options of the plugins in use, `known` all plugin names.

        Tables of the plugins in `unread`, which aren't loaded though they are in use, aren't looked into.
        """
        known, unread = [*known, *kinds], set(unread)
        for layer in self.layers:
            for key in layer.core:
                if key not in CORE:
                    raise unknown(layer.label(key), key, [*CORE, *WORDS, *known])
            for name, table in layer.tables.items():
                if name in kinds:
                    fields = [one.name for one in options.fields(kinds[name])]
                    for key in table:
                        if key not in fields:
                            raise unknown(layer.label(key, name), key, fields)
                elif name not in known:
                    raise unknown(f"{layer.origin}: [{name}]", name, [*known, *CORE])
                elif layer.strict and name not in unread:
                    raise UsageError(
                        f"{layer.origin}: [{name}] is set, but the plugin {name} is not in use",
                        f'add plugins = ["{name}"] to the file, or -p {name}',
                    )


def unknown(label: str, word: str, words: Sequence[str]) -> UsageError:
    """The error for a key that nobody knows."""
    near = difflib.get_close_matches(word, words, 1, 0.6)
    return UsageError(f"{label}: unknown key", f"did you mean {near[0]}?" if near else None)
