"""`hy data show`: scores and caption of a clip, and a contact sheet."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import click
from hy_core.cli.output import clean, note

_LONGEST = 300  # characters of a value


@click.command("show")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("clip")
@click.option(
    "-o", "--out", type=click.Path(dir_okay=False, path_type=Path), help="Write a contact sheet, a PNG."
)
@click.option(
    "--frames", type=click.IntRange(1, 64), default=12, show_default=True, help="Pictures of the sheet."
)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(folder: Path, clip: str, out: Path | None, frames: int, as_json: bool) -> None:
    """Show what is known of CLIP, the beginning of an id or the name of a file.

    \b
    $ hy data show sets/ 3fa9 -o clip.png
    """
    from hy_data.cli.lookup import find_row

    row = {name: value for name, value in find_row(folder, clip).items() if value is not None}
    if as_json:
        click.echo(json.dumps(row, default=str))
    else:
        for name, value in row.items():
            click.echo(clean(f"{name:24} {_shown(value)}"))
    if out is not None:
        write_sheet(row, folder, out, frames)
        note(f"{out}")


def write_sheet(row: dict[str, Any], folder: Path, out: Path, count: int) -> None:
    """Write frames of a clip, evenly spread, side by side as a PNG; `HyError` if its file can't be read."""
    from hy_core.data import ClipRecord
    from hy_core.errors import UsageError
    from hy_core.files import atomic
    from PIL import Image

    from hy_data.frames import ClipFrames, View
    from hy_data.table import read_path

    if out.suffix.lower() != ".png":
        raise UsageError(f"-o {out}: a contact sheet is a .png")
    span = (row["start"], row["stop"]) if "start" in row and "stop" in row else None
    crop = tuple(row["crop"]) if row.get("crop") else None
    record = ClipRecord(read_path(row["path"]), span, crop, home=folder)
    view = View(180, count=count)
    pictures = ClipFrames(record, [view])[view]
    number, height, width = pictures.shape[:3]
    columns = min(number, max(1, math.ceil(math.sqrt(number * height / width))))
    rows = math.ceil(number / columns)
    sheet = Image.new("RGB", (columns * (width + 4) - 4, rows * (height + 4) - 4), "white")
    for index, picture in enumerate(pictures):
        place = (index % columns * (width + 4), index // columns * (height + 4))
        sheet.paste(Image.fromarray(picture), place)
    with atomic(out) as temporary:
        sheet.save(temporary, "PNG")


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list) and len(value) > 16 and not isinstance(value[0], str):
        return f"{len(value)} values"
    text = str(value) if not isinstance(value, list) else ", ".join(map(_shown, value))
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
