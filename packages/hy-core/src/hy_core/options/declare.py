"""Declare options as dataclass fields, and check values against their declarations."""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from hy_core.errors import UsageError
from hy_core.tables import shown

T = TypeVar("T")

_KIND = "hy option"
_LARGE = 1e300  # beyond this a number is a mistake
_LONGEST_PATH = 4096  # bytes
_SCALARS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}


def option(
    default: Any = MISSING,
    *,
    help: str,
    metavar: str | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
) -> Any:
    """Declare a field of an `Options` dataclass; without a default it is required.

    `minimum` and `maximum` (both allowed) bound numbers, or each number of a sequence. Supported types: str,
    int, float, bool, Path, Literal of strings, Optional of those, and sequences of those: list[...] or
    tuple[..., ...] (a flag that repeats) and tuple[A, B] (a flag with that many values).
    """
    about = {_KIND: {"help": help, "metavar": metavar, "minimum": minimum, "maximum": maximum}}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=about, kw_only=True)
    return dataclasses.field(default=default, metadata=about, kw_only=True)


@dataclass(frozen=True)
class Option:
    """One field of an Options class, understood.

    `kinds` holds the scalar types: one of them, or one per value for `shape` "fixed". `shape` is "one",
    "list", "tuple" (any number of values) or "fixed" (exactly `len(kinds)`). `choices` are a Literal's words.
    """

    name: str
    kinds: tuple[type, ...]
    shape: Literal["one", "list", "tuple", "fixed"]
    choices: tuple[str, ...]
    optional: bool
    default: Any
    help: str
    metavar: str | None
    minimum: float | None
    maximum: float | None

    @property
    def required(self) -> bool:
        """Whether there is no default."""
        return self.default is MISSING

    @property
    def wants(self) -> str:
        """What a value must be, in words."""
        one = ", ".join(dict.fromkeys(self._wanted(kind) for kind in self.kinds))
        if self.shape == "one":
            return one
        return f"{len(self.kinds)} values, each {one}" if self.shape == "fixed" else f"a list, each {one}"

    def _wanted(self, kind: type) -> str:
        if self.choices:
            return "one of " + ", ".join(self.choices)
        bounds = [f"at least {self.minimum:g}"] if self.minimum is not None else []
        bounds += [f"at most {self.maximum:g}"] if self.maximum is not None else []
        return " ".join([_SCALARS[kind], " and ".join(bounds)]).strip()

    def check(self, value: Any, label: str, *, text: bool = False) -> Any:
        """The value in its own type, or a UsageError that begins with `label`.

        `text` says that it comes from a place that only knows strings (the environment): "3" becomes 3, and
        "a,b" a list.
        """
        if value is None and self.optional:
            return None
        if self.shape == "one":
            return self._scalar(value, self.kinds[0], label, text)
        if text and isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise self._wrong(value, label, self.wants)
        if self.shape == "fixed" and len(value) != len(self.kinds):
            raise self._wrong(value, label, self.wants)
        kinds = self.kinds if self.shape == "fixed" else self.kinds * len(value)
        values = [self._scalar(one, kind, label, text) for one, kind in zip(value, kinds, strict=True)]
        return values if self.shape == "list" else tuple(values)

    def _wrong(self, value: Any, label: str, wants: str) -> UsageError:
        hint = None
        if self.choices and isinstance(value, str) and (near := nearest(value, self.choices)):
            hint = f"did you mean {near}?"
        return UsageError(f"{label}: {shown(value)} isn't {wants}", hint)

    def _scalar(self, value: Any, kind: type, label: str, text: bool) -> Any:
        if text and kind in (int, float, bool):
            value = _read(value, kind)
        if kind is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < _LARGE:
            value = float(value)
        if kind in (str, Path) and isinstance(value, str) and (problem := text_problem(value)):
            raise UsageError(f"{label}: {shown(value)} {problem}")
        if kind is Path and isinstance(value, str) and value:
            if problem := path_problem(value):
                raise UsageError(f"{label}: {shown(value)} {problem}")
            value = Path(value)
        fits = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
        if fits and kind in (int, float):
            low = -_LARGE if self.minimum is None else self.minimum
            high = _LARGE if self.maximum is None else self.maximum
            fits = low <= value <= high and (kind is int or math.isfinite(value))
        if not fits or (self.choices and value not in self.choices):
            raise self._wrong(value, label, self._wanted(kind))
        return value


def text_problem(text: str) -> str:
    """Why no text of an option can hold these characters, or "": NUL, and surrogates that stand for no byte."""
    if "\0" in text:
        return "holds a NUL character"
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return "holds half of a character (a lone surrogate)"
    return ""


def path_problem(text: str) -> str:
    """Why a text can't be a path, or "": its characters, its length, or a `~name` without a home."""
    if problem := text_problem(text):
        return problem
    if len(os.fsencode(text)) >= _LONGEST_PATH:
        return "is longer than a path can be"
    try:
        Path(text).expanduser()
    except RuntimeError:
        return f"begins with the home of a user who doesn't exist ({Path(text).parts[0]})"
    return ""


def _read(value: str, kind: type) -> Any:
    words = {
        "1": True,
        "true": True,
        "yes": True,
        "on": True,
        "0": False,
        "false": False,
        "no": False,
        "off": False,
    }
    if kind is bool:
        return words.get(value.lower(), value)
    try:
        return kind(value)
    except ValueError:  # of too many digits too
        return value


def fields(options: Any) -> tuple[Option, ...]:
    """The options of an `Options` class, in order; TypeError says which one can't be understood."""
    return _fields(options)


@cache
def _fields(options: Any) -> tuple[Option, ...]:
    if not (isinstance(options, type) and dataclasses.is_dataclass(options)):
        raise TypeError(f"{options!r} isn't a dataclass")
    if not getattr(options, "__dataclass_params__").frozen:  # noqa: B009
        raise TypeError(f"{options.__qualname__} isn't frozen: write @dataclass(frozen=True)")
    try:
        hints = typing.get_type_hints(options)
    except NameError as error:
        raise TypeError(f"{options.__qualname__}: {error}; its types must be imported at run time") from error
    return tuple(_understand(field, hints[field.name]) for field in dataclasses.fields(options) if field.init)


def _understand(field: dataclasses.Field[Any], hint: Any) -> Option:
    if _KIND not in field.metadata:
        raise TypeError(f"option {field.name!r} has no help: declare it with option(help=...)")
    inner, optional = _without_none(hint)
    origin, arguments = typing.get_origin(inner), typing.get_args(inner)
    shape: Literal["one", "list", "tuple", "fixed"] = "one"
    parts: tuple[Any, ...] = (inner,)
    if origin is list and arguments:
        shape, parts = "list", arguments
    elif origin is tuple and arguments:
        shape, parts = ("tuple", arguments[:1]) if arguments[-1] is Ellipsis else ("fixed", arguments)
    choices = _choices(parts[0]) if len(parts) == 1 else ()
    kinds = (str,) if choices else parts
    if any(kind not in _SCALARS for kind in kinds):
        raise TypeError(
            f"option {field.name!r} has the type {hint}; see hy_core.options.option for those that work"
        )
    if shape != "one" and bool in kinds:
        raise TypeError(f"option {field.name!r} is a sequence of switches; use words instead")
    factory = field.default_factory
    default = factory() if factory is not MISSING else field.default
    found = Option(field.name, kinds, shape, choices, optional, default, **field.metadata[_KIND])
    if not found.required and default is not None:
        try:
            found.check(default, "the default")
        except UsageError as error:
            raise TypeError(f"option {field.name!r}: {error}") from error
    elif default is None and not optional:
        raise TypeError(f"option {field.name!r} has the default None, but its type isn't Optional")
    return found


def _without_none(hint: Any) -> tuple[Any, bool]:
    if typing.get_origin(hint) not in (Union, types.UnionType):
        return hint, False
    rest = [part for part in typing.get_args(hint) if part is not type(None)]
    return (rest[0], True) if len(rest) == 1 else (hint, False)


def _choices(hint: Any) -> tuple[str, ...]:
    words = typing.get_args(hint) if typing.get_origin(hint) is Literal else ()
    return words if all(isinstance(word, str) for word in words) else ()


def nearest(word: str, words: Sequence[str] | Mapping[str, object]) -> str | None:
    """The one of `words` that was probably meant, if any is near."""
    return next(iter(difflib.get_close_matches(word, list(words), 1, 0.6)), None)


def flag(prefix: str, name: str) -> str:
    """The flag of a field: `--dawn-curve` for ("dawn", "curve")."""
    return f"--{prefix}-{name}".replace("_", "-")


def parse(
    prefix: str,
    options: type[T],
    values: Mapping[str, Any],
    labels: Mapping[str, str] | None = None,
    partial: bool = False,
) -> T:
    """Make the frozen dataclass from values out of flags, files and keywords.

    `labels` says for some names where their values come from ("hy.toml: [dawn] curve"); the others are called
    by their flags. An unknown name, a wrong type and a missing required one are UsageErrors; with `partial` a missing
    required one is None instead.
    """
    known = {one.name: one for one in fields(options)}
    labels = labels or {}
    for name in values:
        if name not in known:
            label = labels.get(name, flag(prefix, name))
            near = nearest(name, known)
            hint = f"did you mean {near}?" if near else f"{prefix} has: {', '.join(known) or 'no options'}"
            raise UsageError(f"{label}: no such option", hint)
    done = {}
    for name, one in known.items():
        if name in values:
            done[name] = one.check(values[name], labels.get(name, flag(prefix, name)))
        elif one.required and partial:
            done[name] = None
        elif one.required:
            raise UsageError(f"{flag(prefix, name)} is required", one.help)
    return options(**done)
