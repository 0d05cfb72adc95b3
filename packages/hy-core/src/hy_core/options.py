"""Options: one dataclass field is a flag, a TOML key, a keyword, a line of help and JSON schema."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union

from hy_core.errors import UsageError

if TYPE_CHECKING:
    import click

T = TypeVar("T")

_KIND = "hy option"
_SCALARS = {str: "text", int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}
_JSON = {str: "string", int: "integer", float: "number", bool: "boolean", Path: "string"}


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
        return UsageError(f"{label}: {value!r} isn't {wants}", hint)

    def _scalar(self, value: Any, kind: type, label: str, text: bool) -> Any:
        if text and kind in (int, float, bool):
            value = _read(value, kind)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if kind is Path and isinstance(value, str) and value:
            value = Path(value)
        fits = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
        if fits and kind in (int, float):
            low = -math.inf if self.minimum is None else self.minimum
            high = math.inf if self.maximum is None else self.maximum
            fits = math.isfinite(value) and low <= value <= high
        if not fits or (self.choices and value not in self.choices):
            raise self._wrong(value, label, self._wanted(kind))
        return value


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
    except ValueError:
        return value


@cache
def fields(options: type) -> tuple[Option, ...]:
    """The options of an `Options` class, in order; TypeError says which one can't be understood."""
    if not (isinstance(options, type) and dataclasses.is_dataclass(options)):
        raise TypeError(f"{options!r} isn't a dataclass")
    if not options.__dataclass_params__.frozen:
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
    prefix: str, options: type[T], values: Mapping[str, Any], labels: Mapping[str, str] | None = None
) -> T:
    """Make the frozen dataclass from values out of flags, files and keywords.

    `labels` says for some names where their values come from ("hy.toml: [dawn] curve"); the others are called
    by their flags. An unknown name, a wrong type and a missing required one are UsageErrors.
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
        elif one.required:
            raise UsageError(f"{flag(prefix, name)} is required", one.help)
    return options(**done)


def click_options(prefix: str, options: type) -> list[click.Option]:
    """The flags of an Options class, without defaults: `given` tells which were used, `parse` fills in."""
    return [_click_option(prefix, one) for one in fields(options)]


def _click_option(prefix: str, one: Option) -> click.Option:
    import click

    name = flag(prefix, one.name)
    help = one.help
    if one.required:
        help += "  [required]"
    elif one.default not in (None, "", [], (), False):
        shown = one.default if one.shape == "one" else " ".join(map(str, one.default))
        help += f"  [default: {str(shown).lower() if isinstance(shown, bool) else shown}]"
    spelling = [parameter(prefix, one.name), name]
    if one.kinds == (bool,):
        if one.default or one.optional:
            spelling[1] = f"{name}/--{prefix}-no-{one.name}".replace("_", "-")
        return click.Option(spelling, is_flag=True, help=help)
    kinds = [_click_type(one, kind) for kind in one.kinds]
    return click.Option(
        spelling,
        type=tuple(kinds) if one.shape == "fixed" else kinds[0],
        multiple=one.shape in ("list", "tuple"),
        metavar=one.metavar,
        help=help,
    )


def _click_type(one: Option, kind: type) -> click.ParamType:
    import click

    if one.choices:
        return click.Choice(one.choices)
    if kind is Path:
        return click.Path(path_type=Path)
    return {str: click.STRING, int: click.INT, float: click.FLOAT}[kind]


def parameter(prefix: str, name: str) -> str:
    """The name that click knows a plugin's option by: `dawn_curve`."""
    return f"{prefix}_{name}".replace("-", "_")


def given(context: click.Context, prefix: str, options: type) -> dict[str, Any]:
    """The values that were really written on the command line, by field name."""
    from click.core import ParameterSource

    found = {}
    for one in fields(options):
        key = parameter(prefix, one.name)
        if context.get_parameter_source(key) is ParameterSource.COMMANDLINE:
            found[one.name] = context.params[key]
    return found


def plain(options: Any) -> dict[str, Any]:
    """An Options instance as JSON and TOML can hold it: paths as strings, tuples as lists."""

    def simple(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return [simple(one) for one in value]
        return str(value) if isinstance(value, Path) else value

    return {one.name: simple(getattr(options, one.name)) for one in fields(type(options))}


def schema(options: type) -> dict[str, Any]:
    """The JSON schema (2020-12) of an Options class: an object without further properties."""
    known = fields(options)
    return {
        "type": "object",
        "properties": {one.name: _property(one) for one in known},
        "required": [one.name for one in known if one.required],
        "additionalProperties": False,
    }


def _property(one: Option) -> dict[str, Any]:
    items = []
    for kind in one.kinds:
        item: dict[str, Any] = {"type": _JSON[kind]}
        if one.choices:
            item["enum"] = list(one.choices)
        if one.minimum is not None:
            item["minimum"] = one.minimum
        if one.maximum is not None:
            item["maximum"] = one.maximum
        items.append(item)
    if one.shape == "one":
        found = items[0]
    elif one.shape == "fixed":
        found = {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
    else:
        found = {"type": "array", "items": items[0]}
    if one.optional:
        found = {"anyOf": [found, {"type": "null"}]}
    found["description"] = one.help
    if not one.required:
        default = one.default
        found["default"] = str(default) if isinstance(default, Path) else default
    return found
