"""Options as flags of click commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hy_core.options.declare import Option, fields, flag

if TYPE_CHECKING:
    import click


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


def _click_type(one: Option, kind: type) -> click.ParamType[Any]:
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
