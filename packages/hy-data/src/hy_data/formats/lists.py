"""Lists of clips: JSONL, JSON, CSV, and the two text files of finetrainers."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hy_core.data import ClipRecord
from hy_core.errors import UsageError
from hy_core.files import read_text

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv")
PATH_KEYS = ("path", "video_path", "image_path", "file_name", "file", "video", "image")
CAPTION_KEYS = ("captions", "caption", "text", "prompt")
"""Names of the columns of paths and captions in lists of several tools; the first that is there counts."""
_CAPTION_FILES = ("captions.txt", "caption.txt", "prompt.txt", "prompts.txt")
_VIDEO_FILES = ("videos.txt", "video.txt", "images.txt", "image.txt")
_MOST = 1 << 30  # bytes


def read_list(path: Path) -> list[ClipRecord]:
    """Return the records of a list, whose relative paths are looked up beside it and then in the current folder.

    Keys that are neither path nor caption, `span`, `crop` or `rejected` become results. `UsageError` names the line of
    what isn't a record.
    """
    return [_record(row, path, f"{path}, {where}") for where, row in _rows(path)]


def find_pair(folder: Path) -> tuple[Path, Path] | None:
    """Return the file of paths and the file of captions of a folder that has both."""
    videos = next((folder / name for name in _VIDEO_FILES if (folder / name).is_file()), None)
    captions = next((folder / name for name in _CAPTION_FILES if (folder / name).is_file()), None)
    return None if videos is None or captions is None else (videos, captions)


def read_pair(videos: Path, captions: Path) -> list[ClipRecord]:
    """Return the records of two files of as many lines; `UsageError` if their numbers differ."""
    paths = [line.strip() for line in read_text(videos, _MOST).splitlines() if line.strip()]
    texts = [line.strip() for line in read_text(captions, _MOST).splitlines()]
    while len(texts) > len(paths) and not texts[-1]:
        texts.pop()
    if len(paths) != len(texts):
        raise UsageError(
            f"{videos} has {len(paths)} clips, {captions} {len(texts)} captions", "one line for each"
        )
    pairs = zip(paths, texts, strict=True)
    return [
        ClipRecord(_located(path, videos.parent), captions=(text,) if text else ()) for path, text in pairs
    ]


def _rows(path: Path) -> list[tuple[str, Any]]:
    text = read_text(path, _MOST)
    suffix = path.suffix.lower()
    if suffix == ".csv":
        try:
            rows = list(csv.DictReader(io.StringIO(text), strict=True))
        except csv.Error as error:
            raise UsageError(f"{path} is not CSV: {error}") from None
        return [(f"row {at}", {k: v for k, v in row.items() if k and v}) for at, row in enumerate(rows, 1)]
    if suffix == ".json":
        value = _json(text, str(path))
        if isinstance(value, dict):
            value = value.get("data", value)
        if not isinstance(value, list):
            raise UsageError(f"{path} is no list of clips", "one object for each clip in a list")
        return [(f"entry {at}", row) for at, row in enumerate(value, 1)]
    lines = enumerate(text.splitlines(), 1)
    return [(f"line {at}", _json(line, f"{path}, line {at}")) for at, line in lines if line.strip()]


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise UsageError(f"{where} is not JSON") from None


def _record(row: Any, path: Path, where: str) -> ClipRecord:
    if not isinstance(row, Mapping):
        raise UsageError(f"{where} is not an object")
    values = dict(row)
    name = next((key for key in PATH_KEYS if values.get(key)), None)
    if name is None:
        raise UsageError(f"{where} has no path", f"one of the keys {', '.join(PATH_KEYS)}")
    file = values.pop(name)
    caption = next((key for key in CAPTION_KEYS if values.get(key)), None)
    text = values.pop(caption) if caption else None
    for key in ("span", "crop"):
        if isinstance(values.get(key), str):  # in CSV
            values[key] = _json(values[key], f"{where}: {key}")
    for key in (*PATH_KEYS, *CAPTION_KEYS):
        values.pop(key, None)
    try:
        record = ClipRecord.from_json({**values, "path": file, "captions": text or []})
    except UsageError as error:
        raise UsageError(f"{where}: {error.message}", error.hint) from None
    return ClipRecord(
        _located(str(record.path), path.parent),
        record.span,
        record.crop,
        record.rejected,
        record.captions,
        record.results,
    )


def _located(name: str, folder: Path) -> Path:
    beside = folder / name
    return beside if beside.exists() or not Path(name).exists() else Path(name).absolute()
