"""What plugins registered, by name: tables that know owners, and the rules for each kind of registration."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from hy_core import options
from hy_core.conditioner import Conditioner
from hy_core.errors import HyError, PluginError, UsageError
from hy_core.imports import import_target, is_target

T = TypeVar("T")
NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")  # of plugins and conditioners: they begin flags and keys
KINDS = ("dit", "vae", "text", "vocoder")


@dataclass(frozen=True)
class Entry(Generic[T]):
    """Something registered, and the plugin it belongs to."""

    owner: str
    target: T | str


class Registered(Mapping[str, T]):
    """What plugins registered of one kind; a "module:attribute" target is imported when it is looked up."""

    def __init__(
        self,
        what: str,
        entries: Mapping[str, Entry[T]],
        guard: Callable[[str, str, Any], Any] | None = None,
    ) -> None:
        self._what = what
        self._entries = entries
        self._guard = guard

    def __getitem__(self, name: str) -> T:
        """The object; with a guard, a function whose errors name the plugin. PluginError if it can't be imported."""
        entry = self._entries[name]
        found = self._found(name, entry)
        if self._guard is None or entry.owner.startswith("(") or not callable(found):  # "(core)": our own
            return found
        guarded: T = self._guard(entry.owner, f"{self._what} {name!r}", found)
        return guarded

    def _found(self, name: str, entry: Entry[T]) -> T:
        if isinstance(entry.target, str):
            try:
                found: T = import_target(entry.target, f"{self._what} {name!r}")
            except HyError as error:
                raise PluginError(f"plugin {entry.owner!r}: {error.message}", error.hint) from error
            return found
        return entry.target

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def owner(self, name: str) -> str:
        """The plugin that registered `name`."""
        return self._entries[name].owner

    def pick(self, name: str) -> T:
        """The one of that name, or a UsageError with the nearest name."""
        self.check(name)
        return self[name]

    def check(self, name: str) -> None:
        """Raise a UsageError with the nearest name if there is none of that name; imports nothing."""
        if name in self:
            return
        near = options.nearest(name, self._entries)
        hint = f"did you mean {near}?" if near else f"there is: {', '.join(self) or 'none'}"
        raise UsageError(f"no {self._what} {name!r}", hint)


# A reader takes what a plugin passed to `register`; it returns (name, target), or raises Type- or ValueError.


def read_conditioner(owner: str, cls: Any, name: str | None = None) -> tuple[str, type[Conditioner]]:
    """`register(cls, name=None)`: a subclass whose Options are understood."""
    if not (isinstance(cls, type) and issubclass(cls, Conditioner)):
        raise TypeError(f"{cls!r} isn't a subclass of Conditioner")
    options.fields(cls.Options)
    name = owner if name is None else name
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} isn't a name for a conditioner: lower case, such as night-sky")
    return name, cls


def read_model(owner: str, kind: str, name: str, target: Any) -> tuple[str, Any]:
    """`register(kind, name, target)`."""
    if kind not in KINDS:
        raise ValueError(f"a model is one of {', '.join(KINDS)}, not {kind!r}")
    named, target = read_target(owner, name, target)
    return f"{kind}:{named}", target


def read_target(owner: str, name: Any, target: Any) -> tuple[str, Any]:
    """`register(name, target)`: an object, or where to import it from."""
    if not (isinstance(name, str) and name):
        raise TypeError(f"{name!r} isn't a name")
    if isinstance(target, str) and not is_target(target):
        raise ValueError(f'{name!r}: {target!r} isn\'t "module:attribute"')
    return name, target


def read_file(owner: str, name: str, path: str | Path) -> tuple[str, Path]:
    """`register(name, path)`: a TOML file that is there."""
    if not Path(path).is_file():
        raise ValueError(f"{name!r}: no such file: {path}")
    return name, Path(path)


def read_writer(owner: str, suffix: Any, target: Any) -> tuple[str, Any]:
    """`register(suffix, target)`: the suffix begins with a dot."""
    if not (isinstance(suffix, str) and suffix.startswith(".") and suffix == suffix.lower()):
        raise ValueError(f'{suffix!r} isn\'t a suffix such as ".webp"')
    return read_target(owner, suffix, target)


def read_check(owner: str, name: str, function: Callable[[], Any]) -> tuple[str, Callable[[], Any]]:
    """`register(name, function)`."""
    if not callable(function):
        raise TypeError(f"check {name!r} isn't a function")
    return name, function


READERS: dict[str, Callable[..., tuple[str, Any]]] = {
    "register_conditioners": read_conditioner,
    "register_models": read_model,
    "register_presets": read_file,
    "register_recipes": read_file,
    "register_writers": read_writer,
    "register_checks": read_check,
}
