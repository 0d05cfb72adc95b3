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
    from hy_core import provenance, shell

    found = provenance.read(file)
    again = shell.command(found)
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


def lines(found: Mapping[str, Any]) -> list[str]:
    """The record for people."""
    rows = []
    for title in ("request", "ran_on", "weights", "versions"):  # plugins stand in the request
        table = found.get(title)
        if isinstance(table, dict) and table:
            rows += [title.replace("_", " ")]
            rows += [
                f"  {short(key)[:14]:<14}  {short(value)}" for key, value in table.items() if shown(value)
            ]
    return rows


def shown(value: Any) -> bool:
    """Whether a field has something to show."""
    return value is not None and value not in ("", [], {})


def short(value: Any) -> str:
    """Return a value as one line of at most 300 characters."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split())
    return text if len(text) <= 300 else text[:300] + "…"


def differences(found: Mapping[str, Any]) -> list[str]:
    """Return why the same command may give another clip here."""
    from hy_core.found import file_sha256
    from hy_core.provenance import installed
    from hy_core.shell import plugin_files

    warnings = []
    versions = found.get("versions")
    made: dict[str, Any] = versions if isinstance(versions, dict) else {}
    for name in ("hy-core", "torch"):
        here = installed(name)
        if name in made and made[name] != here:
            warnings.append(
                f"made with {name} {short(made[name])}, here is {here}: the clip may differ a little"
            )
    entries = found.get("plugins")
    hashes = {
        entry.get("path"): entry.get("sha256")
        for entry in (entries if isinstance(entries, list) else ())
        if isinstance(entry, dict) and isinstance(entry.get("path"), str)
    }
    for path in plugin_files(found).values():
        warnings.append(f"the command runs the plugin file {short(path)}: read it first")
        try:
            if file_sha256(Path(path)) != hashes[path]:
                warnings.append(f"{short(path)} has changed since: the clip may differ")
        except (OSError, ValueError):
            warnings.append(f"there is no file {short(path)} here")
    return warnings
