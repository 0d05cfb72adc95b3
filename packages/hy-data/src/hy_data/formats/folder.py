"""A folder of clips and pictures with their captions beside them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from hy_core.data import ClipRecord
from hy_core.errors import UsageError
from hy_core.files import read_text
from hy_core.media.names import PICTURES

VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".flv", ".gif", ".wmv")
MEDIA = (*VIDEOS, *PICTURES)
"""Suffixes of files that are taken for clips."""
_MOST_CAPTION = 1 << 20  # bytes


def read_folder(
    folder: Path, *, deep: bool = True, suffixes: tuple[str, ...] = MEDIA, caption: str = ".txt"
) -> list[ClipRecord]:
    """Return the clips of a folder, sorted by path, and of the folders in it if `deep`; hidden ones are left out.

    The caption is the text of the file with the same name and the suffix `caption`; else it is in a `captions.json` of
    the folder, which maps names to a text or a list of texts. `UsageError` for a caption that isn't text.
    """
    records = []
    for path in _files(folder, deep):
        if path.suffix.lower() in suffixes:
            records.append(ClipRecord(path, captions=captions_of(path, caption)))
    return records


def captions_of(path: Path, suffix: str = ".txt") -> tuple[str, ...]:
    """Return the captions of a clip by its own caption file or its folder's `captions.json`; none without either."""
    beside = path.with_suffix(suffix)
    if beside.is_file():
        text = read_text(beside, _MOST_CAPTION).strip()
        return (text,) if text else ()
    together = path.parent / "captions.json"
    if not together.is_file():
        return ()
    found = _captions(together).get(path.name, ())
    return (found,) if isinstance(found, str) else tuple(found)


_read_already: dict[tuple[Path, int], Mapping[str, str | list[str]]] = {}


def _captions(path: Path) -> Mapping[str, str | list[str]]:
    key = (path, path.stat().st_mtime_ns)
    if key not in _read_already:
        try:
            value = json.loads(read_text(path, 1 << 30))
        except (ValueError, RecursionError):
            raise UsageError(f"{path} is not JSON") from None
        texts = isinstance(value, dict) and all(
            isinstance(one, str) or (isinstance(one, list) and all(isinstance(text, str) for text in one))
            for one in value.values()
        )
        if not texts:
            raise UsageError(
                f"{path} does not map names to captions", 'such as {"a.mp4": ["rain", "heavy rain"]}'
            )
        _read_already.clear()
        _read_already[key] = value
    return _read_already[key]


def _files(folder: Path, deep: bool) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if deep else []
        for name in sorted(names):
            if not name.startswith("."):
                yield Path(place, name)
