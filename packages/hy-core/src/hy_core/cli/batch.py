"""Batches: the rows of a file, the names of their outputs, and which clips are finished already."""

from __future__ import annotations

import json
import os
import re
import tomllib
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hy_core import media, provenance, settings
from hy_core.errors import HyError, UsageError
from hy_core.files import numbered_names, read_text
from hy_core.request import Request
from hy_core.settings import Layer

_LINE_END = re.compile(r"\r\n|\n|\r")


def read_rows(path: Path) -> list[Layer]:
    """Return the rows of a batch file as layers with a prompt each.

    Plain text has one prompt per line (empty lines and those with # are skipped); .jsonl one object per line; .json a
    list of objects; .toml one `[[clip]]` per row. Objects hold `prompt`, settings that may differ, and plugin tables.
    Lines end with LF, CRLF or CR alone: other separators of Unicode are part of a prompt. `UsageError` names the file
    and the line.
    """
    text = read_text(path)
    suffix = path.suffix.lower()
    if suffix == ".toml":
        rows = toml_rows(text, path)
    elif suffix == ".json":
        rows = json_rows(text, path)
    else:
        lines = [(at, line.strip()) for at, line in enumerate(_LINE_END.split(text), 1) if line.strip()]
        if suffix in (".jsonl", ".ndjson"):
            rows = [(f"{path}:{at}", json_row(line, f"{path}:{at}")) for at, line in lines]
        else:
            rows = [(f"{path}:{at}", {"prompt": line}) for at, line in lines if not line.startswith("#")]
    if not rows:
        raise UsageError(f"{path} has no prompts", "write one per line")
    return [row_layer(values, origin, path.resolve().parent) for origin, values in rows]


def json_rows(text: str, path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Read a list of objects or prompts, each with its origin."""
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not valid JSON: {str(error)[:80]}") from None
    if not isinstance(rows, list):
        raise UsageError(f"{path}: a batch in JSON is a list", "or one object per line in a .jsonl")
    return [(f"{path}: row {at}", as_row(row, f"{path}: row {at}")) for at, row in enumerate(rows, 1)]


def toml_rows(text: str, path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Read `[[clip]]` tables, each with its origin."""
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
    """Read a line of JSON as a row."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise UsageError(f"{origin} is not valid JSON") from None
    return as_row(row, origin)


def as_row(row: Any, origin: str) -> dict[str, Any]:
    """Check a row from JSON; a string is a prompt, null is left out."""
    if isinstance(row, str):
        return {"prompt": row}
    if not isinstance(row, dict):
        raise UsageError(f'{origin} must be an object such as {{"prompt": "a fox", "seed": 3}}')
    return {key: value for key, value in row.items() if value is not None}


def row_layer(values: Mapping[str, Any], origin: str, base: Path) -> Layer:
    """Return a row as the strongest layer; `output` is a name in the batch's folder."""
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
    """Return a row's table; relative paths that exist beside the batch file mean those files."""

    def seen(value: Any) -> Any:
        is_path = isinstance(value, str) and value and os.path.isfile(base / value)
        return str(base / value) if is_path else value

    return {key: seen(value) for key, value in table.items()}


def slug(prompt: str) -> str:
    """Return the first 40 characters of a prompt as a file name: `a-fox-in-snow`."""
    text = unicodedata.normalize("NFKC", prompt[:400]).lower()
    words = re.sub(r"[\W_]+", "-", text).strip("-")
    return words[:40].strip("-") or "clip"


def default_name(request: Request) -> str:
    """Return `a-fox-in-snow-42.mp4`, or .png for one frame."""
    return f"{slug(request.prompt)}-{request.seed}{'.png' if request.frames == 1 else '.mp4'}"


class Places:
    """Where the rows of a batch go; two rows never share a name."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._taken = folder, set[str]()

    def take(
        self,
        request: Request,
        output: str | None,
        fingerprints: Callable[[], Mapping[str, str]],
        plugins: Callable[[], list[dict[str, str]]],
        origin: str = "",
    ) -> tuple[Path, bool]:
        """Return a row's path, and whether its clip is there already.

        It is if its record holds the same request, `fingerprints` of weights and `plugins`. `UsageError` for an
        `output` outside the folder, of another row, or of a file that is another clip or none of ours.
        """
        if output is not None:
            path = self.folder / inside(self.folder, output, origin)
            if self._is_taken(path):
                raise UsageError(f"two rows of the batch have the output {output}")
            is_finished = made_by(path, request, fingerprints, plugins)
            if not is_finished and os.path.lexists(first := media.frame_path(path, 1)):
                raise UsageError(
                    f"{origin}: {first} exists and isn't this row's clip", "remove it, or name another output"
                )
            return path, is_finished
        for path in numbered_names(self.folder / default_name(request)):
            exists = os.path.lexists(path)
            if exists and not made_by(path, request, fingerprints, plugins):
                continue
            if not self._is_taken(path):
                return path, exists
        raise AssertionError

    def _is_taken(self, path: Path) -> bool:
        """Take a path; whether another row has it."""
        key, before = os.path.normpath(path), len(self._taken)
        self._taken.add(key)
        return len(self._taken) == before


def inside(folder: Path, output: object, origin: str) -> Path:
    """Return a row's output as a path in the folder; `UsageError` if it leads out of it, through a link too."""
    if not isinstance(output, str):
        raise UsageError(f"{origin}: output: needs text, not {str(output)[:60]}")
    path = Path(output)
    try:
        leads_out = (
            path.is_absolute()
            or "\0" in output
            or ".." in path.parts
            or not (folder / path).parent.resolve().is_relative_to(folder.resolve())
        )
    except (OSError, ValueError, RuntimeError):  # NUL, or links in a circle
        leads_out = True
    if leads_out or not path.name:
        raise UsageError(
            f"{origin}: the output {output[:80]!r} is not a name in the folder {folder}",
            "use a relative one, and -o FOLDER/ for the folder",
        )
    return path


def made_by(
    path: Path,
    request: Request,
    fingerprints: Callable[[], Mapping[str, str]],
    plugins: Callable[[], list[dict[str, str]]],
) -> bool:
    """Whether a clip is complete and its record holds the same request, weights and plugins.

    The record names the tiling that "auto" became. Of numbered pictures all must be there.
    """
    first = media.frame_path(path, 1)
    if not os.path.isfile(first):
        return False
    try:
        record = provenance.read(first)
    except HyError:
        return False
    found, wanted = record["request"], json.loads(json.dumps(provenance.summary(request)))
    if {**found, "tiling": request.tiling if request.tiling == "auto" else found.get("tiling")} != wanted:
        return False
    if record.get("plugins", []) != plugins():
        return False
    if media.is_numbered(path):
        count = record.get("pictures", 1)
        if not isinstance(count, int) or (count == 1) != (request.frames == 1):
            return False
        if not all(os.path.isfile(media.frame_path(path, number)) for number in range(1, count + 1)):
            return False
    try:
        return record.get("weights") == fingerprints()
    except OSError:  # weights that aren't there: loading them says which
        return False
