"""Options of plugins: one dataclass field is a flag, a TOML key, a keyword, a line of help and JSON schema."""

from __future__ import annotations

from hy_core.options.declare import Option, fields, flag, nearest, option, parse, path_problem
from hy_core.options.flags import click_options, given, parameter
from hy_core.options.schema import plain, schema

__all__ = [
    "Option",
    "click_options",
    "fields",
    "flag",
    "given",
    "nearest",
    "option",
    "parameter",
    "parse",
    "path_problem",
    "plain",
    "schema",
]
