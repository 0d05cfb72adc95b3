"""Tables of TOML as frozen dataclasses: every key and type checked, the wrong one named."""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from hy_core.errors import UsageError

T = TypeVar("T")


def from_table(cls: type[T], table: dict[str, Any], where: str) -> T:
    """Make a dataclass of a table; `where` is what errors call it. UsageError for what doesn't fit.

    Fields may be str, int, float, bool, dict, a tuple of one kind, another dataclass, or any of these or None.
    """
    hints = get_type_hints(cls)
    known = {f.name for f in fields(cls)}
    values = {}
    for key, value in table.items():
        if key not in known:
            near = get_close_matches(key, known, 1)
            raise UsageError(f"{where}: unknown key {key!r}", f"did you mean {near[0]!r}?" if near else None)
        values[key] = _convert(hints[key], value, f"{where}: {key}")
    try:
        return cls(**values)
    except TypeError:
        missing = [
            f.name
            for f in fields(cls)
            if f.default is MISSING and f.default_factory is MISSING and f.name not in values
        ]
        raise UsageError(f"{where}: {', '.join(missing)} must be given") from None


def _convert(kind: Any, value: Any, where: str) -> Any:
    if get_origin(kind) in (Union, UnionType):
        (kind,) = (one for one in get_args(kind) if one is not NoneType)
    if is_dataclass(kind):
        if not isinstance(value, dict):
            raise UsageError(f"{where}: needs a table, not {value!r}")
        return from_table(kind, value, where)
    if get_origin(kind) is tuple:
        inner = get_args(kind)[0]
        if not isinstance(value, (list, tuple)):
            raise UsageError(f"{where}: needs a list, not {value!r}")
        return tuple(_convert(inner, item, where) for item in value)
    if get_origin(kind) is dict:
        if not isinstance(value, dict):
            raise UsageError(f"{where}: needs a table, not {value!r}")
        return dict(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise UsageError(f"{where}: needs {kind.__name__}, not {value!r}")
    return value


def check_sizes(config: Any, what: str, *, largest: int = 1 << 24, zero: tuple[str, ...] = ()) -> None:
    """Check the fields of a network's configuration, a dataclass of numbers, flags and tuples of numbers.

    Raises UsageError for a value of another type than the field's, and for a number that isn't from 1 (0 for the
    fields in `zero`; over 0 for floats) to `largest`.
    """
    hints = get_type_hints(type(config))
    for one in fields(config):
        value = getattr(config, one.name)
        values = value if isinstance(value, tuple) else (value,)
        kind = get_args(hints[one.name])[0] if get_origin(hints[one.name]) is tuple else hints[one.name]
        expected = (get_origin(hints[one.name]) is tuple) == isinstance(value, tuple)
        for number in values:
            fine = isinstance(number, bool) == (kind is bool)
            fine = fine and isinstance(number, (int, float) if kind is float else kind)
            least = 0 if kind is float or one.name in zero else 1
            if kind is not bool:
                fine = fine and (least < number if kind is float else least <= number) and number <= largest
            expected = expected and bool(fine)
        if not expected:
            raise UsageError(
                f"{what}: {one.name} is {str(value)[:60]}", f"expected {kind.__name__} from {least} to {largest}"
            )
