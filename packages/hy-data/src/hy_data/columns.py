"""Columns of a table from values of any kind, which come in blocks."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

TYPES: dict[str, pa.DataType] = {
    "": pa.float64(),  # no value at all
    "bool": pa.bool_(),
    "int": pa.int64(),
    "float": pa.float64(),
    "text": pa.string(),
    "numbers": pa.list_(pa.float32()),
    "uint8": pa.list_(pa.uint8()),
    "float16": pa.list_(pa.float16()),
    "float32": pa.list_(pa.float32()),
    "uint8 2": pa.list_(pa.list_(pa.uint8())),
    "float16 2": pa.list_(pa.list_(pa.float16())),
    "float32 2": pa.list_(pa.list_(pa.float32())),
    "json": pa.string(),
}
"""The type of a column of each kind. "uint8" to "float32 2" are arrays [n] and [m, n]."""
VECTORS = ("uint8", "float16", "float32", "uint8 2", "float16 2", "float32 2")
_PLAIN = {bool: "bool", int: "int", float: "float", str: "text", type(None): ""}
_MOST = 2**63


def read(values: list[Any]) -> tuple[str, pa.Array]:
    """Return the kind of a block of values and an array of them that `convert` changes to any kind without loss.

    Lists of numbers stay text until then, because they may meet other values in a later block.
    """
    types = set(map(type, values))
    if not types <= _PLAIN.keys():
        values = [one if type(one) in _PLAIN else _simple(one) for one in values]
    kinds = {_kind(one) for one in values} if types & {list, int} or not types <= _PLAIN.keys() else None
    kind = unite(_PLAIN[one] for one in types) if kinds is None else unite(kinds)
    if kind in ("numbers", "json"):
        return kind, _texts([None if one is None else _dumps(one) for one in values])
    if kind == "text":
        return kind, _texts(values)
    if kind == "float":
        values = [None if one is None else float(one) for one in values]
    if kind.endswith(" 2"):
        values = [None if one is None else list(one) for one in values]
    return kind, pa.array(values, TYPES[kind], from_pandas=True)


def unite(kinds: Iterable[str]) -> str:
    """Return the kind of a column whose blocks have these kinds; the order doesn't matter."""
    found = set(kinds) - {""}
    if len(found) < 2:
        return next(iter(found), "")
    if found <= {"bool", "int", "float"}:
        return "float"
    if found <= {"numbers", *VECTORS[:3]}:
        return "float32"
    return "float32 2" if found <= {*VECTORS[3:]} else "json"


def convert(array: pa.Array, kind: str, to: str) -> pa.Array:
    """Convert an array of `read` from its kind to that of its column, in the type of `TYPES`."""
    if kind == "":
        return pa.nulls(len(array), TYPES[to])
    if to == "json":
        if kind in ("numbers", "json"):
            return array
        return _texts([None if one is None else _dumps(one) for one in array.to_pylist()])
    if kind == "numbers":
        return pa.array([None if one is None else json.loads(one) for one in array.to_pylist()], TYPES[to])
    return array if array.type == TYPES[to] else array.cast(TYPES[to], safe=False)


def typed(values: list[Any], type_: pa.DataType) -> pa.Array:
    """Return an array of a known type; raises `pa.ArrowException`, `TypeError` or `ValueError` for other values."""
    if type_ == pa.string():
        return _texts([str(one) if isinstance(one, Path) else one for one in values])
    if type_ == pa.list_(pa.string()):
        return pa.array([None if one is None else [clean(text) for text in one] for one in values], type_)
    return pa.array([one.item() if isinstance(one, np.generic) else one for one in values], type_)


def clean(text: str) -> str:
    """Return text that can be written as UTF-8: lone surrogates, as in names that aren't UTF-8, become escapes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


def _texts(values: list[Any]) -> pa.Array:
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:
        return pa.array([None if one is None else clean(one) for one in values], pa.string())


def _simple(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, np.ndarray):
        array = value if value.dtype in (np.uint8, np.float16) else value.astype(np.float32)
        return array if array.ndim == 2 else array.reshape(-1)
    return value


def _kind(value: Any) -> str:
    kind = _PLAIN.get(type(value))
    if kind == "int" and not -_MOST <= value < _MOST:
        return "float"
    if kind is not None:
        return kind
    if isinstance(value, np.ndarray):
        return str(value.dtype) + (" 2" if value.ndim == 2 else "")
    numbers = isinstance(value, list) and all(type(one) in (int, float) for one in value)
    return "numbers" if numbers else "json"


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=_jsonable)


def _jsonable(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    simple = _simple(value)
    return str(value) if simple is value else simple
