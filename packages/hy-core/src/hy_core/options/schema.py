"""Options as plain values and as JSON schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hy_core.options.declare import Option, fields

_JSON = {str: "string", int: "integer", float: "number", bool: "boolean", Path: "string"}


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
