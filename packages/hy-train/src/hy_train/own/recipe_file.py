"""A recipe as a TOML file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hy_core.files import atomic


def write_recipe(path: Path, table: Mapping[str, Any], comment: str) -> None:
    """Write a table of strings, numbers, booleans, lists and tables as TOML, whole or not at all."""
    with atomic(path) as temporary:
        Path(temporary).write_text(f"# {comment}\n{dumps(table)}", encoding="utf-8")


def dumps(table: Mapping[str, Any], path: str = "") -> str:
    """Return TOML: plain keys first, then tables; lists of tables are written in line."""
    plain = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
    lines = [f"{_key(key)} = {_value(value)}" for key, value in plain.items()]
    for key, value in table.items():
        if isinstance(value, Mapping):
            name = f"{path}{_key(key)}"
            lines += ["", f"[{name}]", dumps(value, f"{name}.").rstrip("\n")]
    return "\n".join(lines) + "\n"


def _key(key: str) -> str:
    bare = key.replace("_", "").replace("-", "")
    return key if bare.isascii() and bare.isalnum() else _text(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {_value(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list | tuple):
        if value and isinstance(value[0], Mapping):
            return "[\n" + "".join(f"    {_value(one)},\n" for one in value) + "]"
        return f"[{', '.join(map(_value, value))}]"
    return repr(value)


def _text(text: str) -> str:
    """A basic string: JSON's escapes are TOML's, but for the DEL character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
