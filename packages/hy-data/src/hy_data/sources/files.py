"""The files of an input: those of a folder, a single one, or those of a list of paths and addresses."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hy_core.data import ClipRecord
from hy_core.errors import HyError, MissingError, UsageError
from hy_core.files import open_regular
from hy_core.media.names import PICTURES

VIDEOS = frozenset(
    ".mp4 .m4v .mov .qt .mkv .webm .avi .flv .f4v .mpg .mpeg .m2v .ts .m2ts .mts .wmv .asf .ogv .ogm .gif .3gp .3g2 "
    ".y4m .ivf .apng".split()
)
"""Suffixes of the videos that are taken from a folder; a file that is named itself, or in a list, may have any."""
MEDIA = VIDEOS | frozenset(PICTURES)
"""Suffixes of all files that are taken from a folder."""
LISTS = (".txt", ".jsonl", ".lst")
_LONGEST_LINE = 1 << 20
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Listing:
    """The inputs of a run, and what was left out: numbers of files by reason."""

    entries: list[dict[str, Any]]
    ignored: Counter[str] = field(default_factory=Counter)


def list_inputs(source: Path, out: Path | None = None) -> Listing:
    """Return the inputs of a folder, a list or a file, sorted by path; what lies in the folder `out` is left out.

    Entries have `path` (absolute) or `url`, and of lists `record` (keys of a `ClipRecord`) and `sha256`. `MissingError`
    if there is no such file, `UsageError` for a malformed list and for no input at all.
    """
    source = Path(source)
    if source.is_dir():
        listing = _folder(source, out)
    elif not source.exists():
        raise MissingError(f"no such file or folder: {source}")
    elif source.suffix.lower() in LISTS:
        listing = Listing(list(_list(source)))
    else:
        listing = Listing([_entry(source)])
    if not listing.entries:
        ignored = ", ".join(f"{count} {reason}" for reason, count in listing.ignored.most_common(3))
        raise UsageError(
            f"{source} has no videos or pictures" + (f" (ignored: {ignored})" if ignored else ""),
            f"a folder's files need one of the suffixes {' '.join(sorted(MEDIA))}",
        )
    return listing


def content_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits; `HyError` if it can't be read or is empty."""
    sha, size = hashlib.sha256(), 0
    with open_regular(path) as file:
        try:
            while block := file.read(_BLOCK):
                sha.update(block)
                size += len(block)
        except OSError as error:
            raise HyError(f"{path} cannot be read ({error.strerror})") from error
    if not size:
        raise HyError(f"{path} is empty")
    return sha.hexdigest()


def _entry(path: Path) -> dict[str, Any]:
    path = Path(os.path.abspath(path))
    try:
        size = path.stat().st_size
    except OSError:
        size = 0
    return {"path": str(path), "size": size}


def _folder(root: Path, out: Path | None) -> Listing:
    """Walk a folder without following links out of it; hidden files and folders are left out."""
    real, ignored = os.path.realpath(root), Counter[str]()
    skipped = os.path.realpath(out) if out is not None else ""
    entries = []

    def failed(error: OSError) -> None:
        ignored[f"unreadable folder {error.filename}"] += 1

    for folder, folders, names in os.walk(root, onerror=failed):
        folders[:] = sorted(
            one
            for one in folders
            if not one.startswith(".") and os.path.realpath(os.path.join(folder, one)) != skipped
        )
        for name in names:
            path = Path(folder, name)
            suffix = path.suffix.lower()
            if name.startswith("."):
                ignored["hidden"] += 1
            elif suffix not in MEDIA:
                ignored[suffix or "without suffix"] += 1
            elif path.is_symlink() and not os.path.realpath(path).startswith(real + os.sep):
                ignored["link out of the folder"] += 1
            elif not path.is_file():
                ignored["not a file"] += 1
            else:
                entries.append(_entry(path))
    return Listing(sorted(entries, key=lambda one: os.fsencode(one["path"])), ignored)


def _list(path: Path) -> Iterator[dict[str, Any]]:
    """Read one entry a line: a path, relative to the list, an address, or in .jsonl an object of a clip record."""
    home = path.absolute().parent
    with open_regular(path) as file:
        number = 0
        while line := file.readline(_LONGEST_LINE + 1):
            number += 1
            where = f"{path}, line {number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError:
                raise UsageError(f"{where} is not text in UTF-8") from None
            if len(line) > _LONGEST_LINE:
                raise UsageError(f"{where} is longer than {_LONGEST_LINE >> 20} MB", "one file to a line")
            if text and not (text.startswith("#") and path.suffix.lower() != ".jsonl"):
                yield _listed(text, home, where, path.suffix.lower() == ".jsonl")


def _listed(text: str, home: Path, where: str, is_json: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"path": text}
    if is_json:
        try:
            row = json.loads(text)
        except (ValueError, RecursionError):
            raise UsageError(f"{where} is not JSON", 'such as {"path": "a.mp4", "caption": "rain"}') from None
        if not isinstance(row, dict):
            raise UsageError(f"{where} is not a JSON object", 'such as {"path": "a.mp4"}')
    name = row.pop("url", None) or row.get("path")
    sha256 = row.pop("sha256", None)
    if sha256 is not None and not (isinstance(sha256, str) and len(sha256) == 64):
        raise UsageError(f"{where}: sha256 is not 64 hex digits")
    try:
        record = ClipRecord.from_json({**row, "path": name}).to_json()
    except UsageError as error:
        raise UsageError(f"{where}: {error.message}", error.hint) from None
    del record["path"]
    entry: dict[str, Any]
    if str(name).startswith(("http://", "https://")):
        entry = {"url": str(name), "size": 0}
    else:
        entry = _entry(home / str(name))
    if sha256:
        entry["sha256"] = sha256.lower()
    return {**entry, "record": record} if record else entry
