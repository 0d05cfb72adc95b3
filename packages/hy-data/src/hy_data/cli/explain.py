"""`hy data explain`: why a clip is not in a set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from hy_core.cli.output import clean
from hy_core.errors import UsageError


@click.command("explain")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("clip")
@click.option("--set", "name", help="Of this set only.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(folder: Path, clip: str, name: str | None, as_json: bool) -> None:
    """Tell for each set why CLIP, the beginning of an id or the name of a file, is in it or not.

    \b
    $ hy data explain sets/ 3fa9 --set 720p
    """
    from hy_data.cli.lookup import find_row
    from hy_data.select.rules import reason_text

    decided = (folder / "manifest.parquet").is_file()
    row = find_row(folder, clip, "manifest.parquet" if decided else "scores.parquet")
    kept = {key.removeprefix("kept_"): value for key, value in row.items() if key.startswith("kept_")}
    if name is not None and name not in kept:
        raise UsageError(f"{folder} has no set {name!r}", f"there is: {', '.join(kept) or 'none'}")
    kept = {key: value for key, value in kept.items() if name in (None, key)}
    why = {
        key: [] if one else [reason_text(reason) for reason in row[f"reasons_{key}"]]
        for key, one in kept.items()
    }
    if as_json:
        facts: dict[str, Any] = {
            key: row[key] for key in ("id", "path", "start", "stop", "status", "stage", "reason")
        }
        click.echo(
            json.dumps({**facts, "sets": {key: {"kept": kept[key], "reasons": why[key]} for key in kept}})
        )
        return
    part = "" if row["stop"] is None else f", {row['start']:.2f} to {row['stop']:.2f} s"
    click.echo(clean(f"{row['id']} of {row['path']}{part}"))
    if row["status"] != "ok":
        tries = f" ({row['tries']} tries)" if (row["tries"] or 1) > 1 else ""
        click.echo(clean(f"{row['status']} at the stage {row['stage']}: {row['reason']}{tries}"))
    else:
        click.echo("all stages went well")
    for key, one in kept.items():
        click.echo(clean(f"{key}: {'kept' if one else '; '.join(why[key]) or 'not kept'}"))
    if not kept:
        click.echo("no sets were decided: the recipe has none, or hy data decide has not run")
