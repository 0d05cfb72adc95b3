"""Configuration files as checked values: TOML and JSON of bounded size and depth, tables as dataclasses.

Every configuration that a user can supply is read through here: settings, presets, recipes, the config files of models.
What is wrong is a `UsageError` of one line that names the file and the key.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import reprlib
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, is_dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from hy_core.errors import UsageError

T = TypeVar("T")

MOST_BYTES = 1 << 20
"""The longest configuration file; the longest recipe of ours has some 3 kB."""
MOST_LEVELS = 32
MOST_INTEGER = 2**63 - 1
_BOUNDS = "hy bounds"
_MOST_DOTTED = 10**7
"""The largest sum over lines of the squared number of dots: tomllib takes quadratic time for the dots of a key."""
_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 60


def shown(value: Any) -> str:
    """A value for an error message, cut to a line."""
    return _short.repr(value)


# -- files -----------------------------------------------------------------------------------------------


def read_text(path: Path | str, most: int = MOST_BYTES) -> str:
    """The UTF-8 text of a regular file of at most `most` bytes, without a byte-order mark; UsageError otherwise."""
    try:
        path = Path(path).expanduser()
        with open(path, "rb", opener=_open_now) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UsageError(f"cannot read {path}: it isn't a regular file")
            data = file.read(most + 1)
    except FileNotFoundError:
        raise UsageError(f"no such file: {path}") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, RuntimeError) as error:  # NUL or a lone surrogate in the path; no such home
        raise UsageError(f"cannot read {str(path)!r}: {error}") from None
    if len(data) > most:
        raise UsageError(f"{path} is longer than {most} bytes", "a configuration has some kilobytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text (byte {error.start})", "save it as UTF-8") from None


def _open_now(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe that nobody writes doesn't block


def read_toml(path: Path | str) -> dict[str, Any]:
    """The values of a TOML file; UsageError names the file and the line of what is wrong."""
    return parse_toml(read_text(path), str(path))


def parse_toml(text: str, origin: str) -> dict[str, Any]:
    """The values of TOML text; errors call it `origin`."""
    if sum(line.count(".") ** 2 for line in text.split("\n")) > _MOST_DOTTED:
        raise UsageError(f"{origin} is not valid TOML: nested deeper than {MOST_LEVELS} levels")
    try:
        values = tomllib.loads(text)
    except RecursionError:
        raise UsageError(f"{origin} is not valid TOML: nested deeper than {MOST_LEVELS} levels") from None
    except ValueError as error:  # tomllib.TOMLDecodeError is one
        raise UsageError(f"{origin} is not valid TOML: {error}") from None
    _check_plain(values, origin)
    return values


def read_json(path: Path | str, most: int = MOST_BYTES) -> dict[str, Any]:
    """The JSON object in a file; UsageError names the file."""
    return parse_json(read_text(path, most), str(path))


def parse_json(text: str, origin: str) -> dict[str, Any]:
    """The object of JSON text; UsageError, calling it `origin`, for anything else, NaN and Infinity included."""
    try:
        values = json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise UsageError(f"{origin} is not valid JSON: nested deeper than {MOST_LEVELS} levels") from None
    except ValueError as error:
        raise UsageError(f"{origin} is not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise UsageError(f"{origin} holds no JSON object")
    _check_plain(values, origin)
    return values


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is not a JSON number")


def _check_plain(values: dict[str, Any], origin: str) -> None:
    """Refuse deep nesting and integers that no 64-bit number holds."""
    level: list[tuple[str, Any]] = [("", values)]
    for _ in range(MOST_LEVELS + 1):
        if not level:
            return
        below: list[tuple[str, Any]] = []
        for key, value in level:
            if isinstance(value, dict):
                below += [(str(name), one) for name, one in value.items()]
            elif isinstance(value, list):
                below += [(key, one) for one in value]
            elif isinstance(value, int) and abs(value) > MOST_INTEGER:
                raise UsageError(f"{origin}: {key}: {shown(value)} is out of range")
        level = below
    raise UsageError(f"{origin} is nested deeper than {MOST_LEVELS} levels")


# -- dataclasses -----------------------------------------------------------------------------------------


def bounded(default: Any, minimum: float, maximum: float) -> Any:
    """A dataclass field with a default, whose number, or each number of a sequence, lies in `minimum` to `maximum`."""
    return dataclasses.field(default=default, metadata={_BOUNDS: (minimum, maximum)})


def from_table(cls: type[T], table: Mapping[str, Any], where: str) -> T:
    """Make a dataclass of a table; `where` is what errors call it. UsageError for what doesn't fit.

    Fields may be str, int, float, bool, dict, a Literal of words, a tuple (of one kind of any length, or one kind for
    each item), another dataclass, or any of these or None. Fields declared by `bounded` are checked for their range.
    """
    hints, known = _hints(cls), {f.name: f for f in _fields(cls)}
    values = {}
    for key, value in table.items():
        if key not in known:
            near = get_close_matches(str(key), known, 1)
            raise UsageError(
                f"{where}: unknown key {shown(key)}", f"did you mean {near[0]!r}?" if near else None
            )
        values[key] = _convert(hints[key], value, f"{where}: {key}")
        _check_bounds(known[key], values[key], f"{where}: {key}")
    missing = [name for name, f in known.items() if name not in values and _required(f)]
    if missing:
        raise UsageError(f"{where}: {', '.join(missing)} must be given")
    return cls(**values)


def check_fields(instance: Any, where: str) -> None:
    """Check type and range of every field of a dataclass instance; UsageError names `where` and the field.

    For `__post_init__` of configurations that code makes from foreign files. Values of a numerically equal type (2 for
    2.0, a list for a tuple) are converted in place.
    """
    hints = _hints(type(instance))
    for one in _fields(type(instance)):
        value = _convert(hints[one.name], getattr(instance, one.name), f"{where}: {one.name}")
        _check_bounds(one, value, f"{where}: {one.name}")
        object.__setattr__(instance, one.name, value)


def _hints(cls: Any) -> dict[str, Any]:
    return _cached_hints(cls)


@cache
def _cached_hints(cls: Any) -> dict[str, Any]:
    return get_type_hints(cls)


def _fields(cls: Any) -> tuple[dataclasses.Field[Any], ...]:
    return tuple(one for one in dataclasses.fields(cls) if one.init)


def _required(one: dataclasses.Field[Any]) -> bool:
    return one.default is MISSING and one.default_factory is MISSING


def _check_bounds(one: dataclasses.Field[Any], value: Any, where: str) -> None:
    if _BOUNDS not in one.metadata or value is None:
        return
    low, high = one.metadata[_BOUNDS]
    for number in value if isinstance(value, tuple) else (value,):
        if not low <= number <= high:
            raise UsageError(f"{where}: {shown(number)} is not between {low:g} and {high:g}")


def _convert(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any or kind is object:
        return value
    if origin in (Union, UnionType):
        kinds = [one for one in arguments if one is not NoneType]
        if value is None and len(kinds) < len(arguments):
            return None
        return _first_that_fits(kinds, value, where)
    if origin is Literal:
        if value not in arguments:
            raise UsageError(f"{where}: {shown(value)} isn't one of {', '.join(map(str, arguments))}")
        return value
    if isinstance(kind, type) and is_dataclass(kind):
        if isinstance(value, kind):
            return value
        if not isinstance(value, dict):
            raise UsageError(f"{where}: needs a table, not {shown(value)}")
        return from_table(kind, value, where)
    if origin is tuple or kind is tuple:
        return _tuple(arguments, value, where)
    if kind is dict or origin is dict or origin is Mapping:
        if not isinstance(value, Mapping):
            raise UsageError(f"{where}: needs a table, not {shown(value)}")
        return dict(value)
    if (
        kind is float
        and isinstance(value, int)
        and not isinstance(value, bool)
        and abs(value) <= MOST_INTEGER
    ):
        return float(value)
    wrong = not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)
    if wrong or (kind is float and not math.isfinite(value)):
        raise UsageError(f"{where}: needs {_WORDS.get(kind, kind.__name__)}, not {shown(value)}")
    return value


_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def _first_that_fits(kinds: list[Any], value: Any, where: str) -> Any:
    for kind in kinds[:-1]:
        try:
            return _convert(kind, value, where)
        except UsageError:
            continue
    return _convert(kinds[-1], value, where)


def _tuple(arguments: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise UsageError(f"{where}: needs a list, not {shown(value)}")
    if not arguments:
        return tuple(value)
    if arguments[-1] is Ellipsis:
        return tuple(_convert(arguments[0], item, where) for item in value)
    if len(value) != len(arguments):
        raise UsageError(f"{where}: needs {len(arguments)} values, not {len(value)}")
    return tuple(_convert(kind, item, where) for kind, item in zip(arguments, value, strict=True))
