"""hy inspect: how a file was made, and the command that makes it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from hy_core.cli import output


@click.command("inspect")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="The record as JSON.")
@click.option("--command", "only_command", is_flag=True, help="Only the command that makes it again.")
def command(file: Path, as_json: bool, only_command: bool) -> None:
    """Tell how FILE was made, and the command to make it again.

    The record in a file is what its maker wrote: read the command before you run it.
    """
    from hy_core import provenance

    found = provenance.read(file)
    load_plugins(found)
    again = provenance.command(found)
    if only_command:
        click.echo(again)
        return
    if as_json:
        click.echo(json.dumps({**found, "file": str(file), "command": again}, indent=2, ensure_ascii=True))
        return
    for line in lines(found):
        click.echo(output.clean(line))
    click.echo(f"\nAgain:\n  {again}")
    for warning in differences(found):
        output.warn(warning)


def load_plugins(found: Mapping[str, Any]) -> None:
    """Load the installed plugins that a record names, to spell their flags; never a file that it names."""
    from hy_core.errors import HyError
    from hy_core.plugins import installed

    plugins = installed()
    for name in found["request"].get("plugins") or ():
        if isinstance(name, str) and name in plugins.found:
            try:
                plugins.load(name)
            except HyError as error:
                output.warn(str(error))


def lines(found: Mapping[str, Any]) -> list[str]:
    """The record for people."""
    rows = []
    for title in ("request", "ran_on", "weights", "versions"):
        table = found.get(title)
        if isinstance(table, dict) and table:
            rows += [title.replace("_", " ")]
            rows += [
                f"  {short(key)[:14]:<14}  {short(value)}" for key, value in table.items() if shown(value)
            ]
    return rows


def shown(value: Any) -> bool:
    return value is not None and value not in ("", [], {})


def short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split())
    return text if len(text) <= 300 else text[:300] + "…"


def differences(found: Mapping[str, Any]) -> list[str]:
    """Why the same command may give another clip here."""
    from hy_core.provenance import installed

    said = []
    made = found.get("versions")
    for name in ("hy-core", "torch") if isinstance(made, dict) else ():
        here = installed(name)
        if name in made and made[name] != here:
            said.append(f"made with {name} {short(made[name])}, here is {here}: the clip may differ a little")
    plugins = found["request"].get("plugins")
    for name in plugins if isinstance(plugins, list) else ():
        if isinstance(name, str) and name.endswith(".py"):
            said.append(f"the command runs the plugin file {short(name)}: read it first")
    return said
