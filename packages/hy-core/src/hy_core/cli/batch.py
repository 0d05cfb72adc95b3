"""Many clips in one run: the rows of a file, the names of the outputs, and what is finished already."""

from __future__ import annotations

import json
import re
import tomllib
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hy_core import media, provenance, settings
from hy_core.errors import HyError, UsageError
from hy_core.request import Request
from hy_core.settings import Layer

Prints = Callable[[], Mapping[str, str]]
"""Hashes of the weights that a row would be made with, by what they are."""


def read_rows(path: Path) -> list[Layer]:
    """The rows of a batch file as layers with a prompt each.

    Plain text has one prompt per line (empty lines and those with # are skipped); .jsonl one object per line;
    .toml one `[[clip]]` per row. Objects hold `prompt`, settings that may differ, and plugin tables.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"cannot read {path}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}"
        ) from None
    suffix = path.suffix.lower()
    if suffix == ".toml":
        rows = toml_rows(text, path)
    else:
        lines = [(at, line.strip()) for at, line in enumerate(text.splitlines(), 1) if line.strip()]
        if suffix in (".jsonl", ".ndjson"):
            rows = [(f"{path}:{at}", json_row(line, f"{path}:{at}")) for at, line in lines]
        else:
            rows = [(f"{path}:{at}", {"prompt": line}) for at, line in lines if not line.startswith("#")]
    if not rows:
        raise UsageError(f"{path} has no prompts", "write one per line")
    return [row_layer(values, origin, path.resolve().parent) for origin, values in rows]


def toml_rows(text: str, path: Path) -> list[tuple[str, dict[str, Any]]]:
    try:
        found = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from None
    rows = found.get("clip")
    if set(found) != {"clip"} or not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UsageError(
            f"{path}: a batch in TOML is a list of [[clip]] tables", "what all clips share: -c FILE"
        )
    return [(f"{path}: clip {at}", row) for at, row in enumerate(rows, 1)]


def json_row(line: str, origin: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise UsageError(f"{origin} is not valid JSON") from None
    if isinstance(row, str):
        return {"prompt": row}
    if not isinstance(row, dict):
        raise UsageError(f'{origin} must be an object such as {{"prompt": "a fox", "seed": 3}}')
    return {key: value for key, value in row.items() if value is not None}


def row_layer(values: Mapping[str, Any], origin: str, base: Path) -> Layer:
    """One row as the strongest layer; `output` is a name in the batch's folder."""
    for key in values:
        if key in settings.CORE and key not in settings.ROW:
            raise UsageError(
                f"{origin}: {key} cannot differ from row to row", f"give --{key} for the whole batch"
            )
    for key in ("plugins", "requires"):
        if key in values:
            raise UsageError(f"{origin}: {key} cannot differ from row to row", "use -p or -c FILE")
    layer = settings.as_layer(values, origin, None)
    if layer.prompt is None:
        raise UsageError(f"{origin} has no prompt")
    tables = {name: absolute(table, base) for name, table in layer.tables.items()}
    return Layer(origin, layer.core, tables, prompt=layer.prompt)


def absolute(table: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """A row's table; relative paths that exist beside the batch file mean those files."""

    def seen(value: Any) -> Any:
        if (
            isinstance(value, str)
            and value
            and len(value) < 1024
            and "\0" not in value
            and (base / value).is_file()
        ):
            return str(base / value)
        return value

    return {key: seen(value) for key, value in table.items()}


def slug(prompt: str) -> str:
    """The first 40 characters of a prompt as a file name: `a-fox-in-snow`."""
    text = unicodedata.normalize("NFKC", prompt[:400]).lower()
    words = re.sub(r"[\W_]+", "-", text).strip("-")
    return words[:40].strip("-") or "clip"


def default_name(request: Request) -> str:
    """`a-fox-in-snow-42.mp4`, or .png for one frame."""
    return f"{slug(request.prompt)}-{request.seed}{'.png' if request.frames == 1 else '.mp4'}"


def numbered(path: Path) -> Any:
    """The path, then the same with -2, -3 and so on."""
    yield path
    at = 2
    while True:
        yield path.with_name(f"{path.stem}-{at}{path.suffix}")
        at += 1


def free(path: Path) -> Path:
    """The first of path, path-2, path-3 … that does not exist."""
    return next(one for one in numbered(path) if not one.exists())


def place(
    request: Request, folder: Path, output: str | None, taken: set[Path], prints: Prints
) -> tuple[Path, bool]:
    """Where a row goes, and whether it is there already, made by the same request and weights (of these `prints`)."""
    if output is not None:
        path = folder / output
        if path in taken:
            raise UsageError(f"two rows of the batch have the output {output}")
        taken.add(path)
        return path, made_by(path, request, prints)
    for path in numbered(folder / default_name(request)):
        if path in taken:
            continue
        if not path.exists() or made_by(path, request, prints):
            taken.add(path)
            return path, path.exists()
    raise AssertionError


def made_by(path: Path, request: Request, prints: Prints) -> bool:
    """Whether a file's record holds the very same request (but it names the tiling that "auto" came to) and weights."""
    first = media.frame_path(path, 1)
    if not first.is_file():
        return False
    try:
        record = provenance.read(first)
    except HyError:
        return False
    found, asked = record["request"], json.loads(json.dumps(provenance.summary(request)))
    if {**found, "tiling": request.tiling if request.tiling == "auto" else found.get("tiling")} != asked:
        return False
    try:
        return record.get("weights") == prints()
    except OSError:  # weights that aren't there: to load them says which
        return False
