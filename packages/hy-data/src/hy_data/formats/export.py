"""Export a set: WebDataset shards or a plain folder of clips that are cut, or a list that names parts of the raw files.

Names of files come from clip ids and the name of the set alone. Clips that can't be cut are in `NAME-failed.jsonl`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hy_core.data import ClipRecord
from hy_core.errors import HyError, MissingError, UsageError
from hy_core.files import write_text

from hy_data.formats.cut import cut
from hy_data.formats.shards import write_shard
from hy_data.select.decide import read_decision
from hy_data.table import open_scores, read_path

To = Literal["webdataset", "folder", "jsonl"]
_MOST_ROWS = 10**6  # of a shard
_FACTS = (
    "path",
    "start",
    "stop",
    "time",
    "crop",
    "captions",
    "status",
    "stage",
    "reason",
    "tries",
    "width",
    "height",
)


@dataclass(frozen=True)
class Exported:
    """What an export wrote: the number of clips, its files (of WebDataset the shards), and the failures by clip id."""

    clips: int
    files: tuple[Path, ...]
    failed: Mapping[str, str]


def export_set(
    folder: Path | str,
    name: str,
    to: To,
    out: Path | str,
    *,
    shard_bytes: int = 1 << 28,
    fps: float | None = None,
) -> Exported:
    """Write the set `name` of a decided folder into the folder `out`.

    webdataset: shards NAME-000000.tar, closed when they have `shard_bytes`, with ID.mp4 (ID.png), ID.txt (the first
    caption) and ID.json (all facts and scores); a shard that is there already for the same clips isn't written again.
    folder: the same files, and `metadata.jsonl`, whose `file_name` and `text` other tools read. jsonl: NAME.jsonl, clip
    records with the span and crop of each clip in its raw file. `fps`: frames a second of the clips; that of the set,
    else the file's own, if it isn't given.
    """
    folder, out = Path(folder), Path(out)
    stated = next((one for one in read_decision(folder).sets if one["name"] == name), None)
    if stated is None:
        names = ", ".join(one["name"] for one in read_decision(folder).sets)
        raise MissingError(f"{folder} has no set {name!r}", f"it has {names}")
    if shard_bytes < 1:
        raise UsageError(f"shards of {shard_bytes} bytes", "give at least 1")
    out.mkdir(parents=True, exist_ok=True)
    rows = _rows(folder / "sets" / f"{name}.parquet")
    if to == "jsonl":
        return _list(rows, folder, out / f"{name}.jsonl")
    rate = fps or stated["fps"]
    failed: dict[str, str] = {}
    if to == "folder":
        done = _folder(rows, folder, out, rate, failed)
    else:
        done = _shards(rows, folder, out, name, rate, shard_bytes, failed)
    report = out / f"{name}-failed.jsonl"
    if failed:
        write_text(
            report, "".join(json.dumps({"id": one, "reason": why}) + "\n" for one, why in failed.items())
        )
    else:
        report.unlink(missing_ok=True)
    return Exported(done[0], done[1], failed)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with open_scores(path) as file:
        for group in range(file.num_row_groups):
            yield from file.read_row_group(group).to_pylist()


def _list(rows: Iterator[dict[str, Any]], folder: Path, path: Path) -> Exported:
    lines = []
    for row in rows:
        if row.get("time") is not None:
            raise UsageError(f"the set {path.stem} has frames of clips", "export it to webdataset or folder")
        record = ClipRecord(
            ClipRecord(read_path(row["path"]), home=folder).file.absolute(),
            None if row["stop"] is None else (row["start"] or 0.0, row["stop"]),
            None if row.get("crop") is None else tuple(row["crop"]),
            captions=tuple(row.get("captions") or ()),
            results=_results(row),
        )
        lines.append(json.dumps(record.to_json()) + "\n")
    write_text(path, "".join(lines))
    return Exported(len(lines), (path,), {})


def _folder(
    rows: Iterator[dict[str, Any]], folder: Path, out: Path, fps: float | None, failed: dict[str, str]
) -> tuple[int, tuple[Path, ...]]:
    files, lines = [], []
    for row in rows:
        try:
            facts = cut(row, folder, out / _key(row), fps)
        except HyError as error:
            failed[row["id"]] = error.message
            continue
        file = facts.pop("file")
        caption = _caption(row)
        if caption:
            write_text(file.with_suffix(".txt"), caption + "\n")
        files.append(file)
        named = {"file_name": file.name, "text": caption, **_results(row), **facts}
        lines.append(json.dumps(named, ensure_ascii=False) + "\n")
    write_text(out / "metadata.jsonl", "".join(lines))
    return len(files), tuple(files)


def _shards(
    rows: Iterator[dict[str, Any]],
    folder: Path,
    out: Path,
    name: str,
    fps: float | None,
    shard_bytes: int,
    failed: dict[str, str],
) -> tuple[int, tuple[Path, ...]]:
    shards: list[Path] = []
    count = 0
    while (first := next(rows, None)) is not None:
        rows = itertools.chain([first], rows)
        shard = out / f"{name}-{len(shards):06d}.tar"
        index = shard.with_suffix(".json")
        used, failures = _known(shard, index, rows, fps, shard_bytes)
        if failures is None:
            used, failures = _shard(itertools.chain(used, rows), folder, shard, fps, shard_bytes)
            stated = {"key": _print(used, fps, shard_bytes), "rows": len(used), "failed": failures}
            write_text(index, json.dumps(stated))
        failed.update(failures)
        count += len(used) - len(failures)
        shards.append(shard)
    for old in sorted(out.glob(f"{name}-[0-9][0-9][0-9][0-9][0-9][0-9].tar")):
        if old not in shards:
            old.unlink()
            old.with_suffix(".json").unlink(missing_ok=True)
    return count, tuple(shards)


def _shard(
    rows: Iterator[dict[str, Any]], folder: Path, shard: Path, fps: float | None, shard_bytes: int
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Write a shard of the first rows; return these and the failures among them."""
    failed: dict[str, str] = {}
    samples: list[tuple[str, dict[str, Path | bytes]]] = []
    used: list[dict[str, Any]] = []
    size = 0
    with tempfile.TemporaryDirectory(dir=shard.parent, prefix=".cut-") as temporary:
        for row in rows:
            used.append(row)
            try:
                facts = cut(row, folder, Path(temporary) / _key(row), fps)
            except HyError as error:
                failed[row["id"]] = error.message
                continue
            file = facts.pop("file")
            text = json.dumps(
                {"caption": _caption(row), **_all(row), **facts}, ensure_ascii=False, sort_keys=True
            )
            members: dict[str, Path | bytes] = {file.suffix: file, ".json": text.encode()}
            if caption := _caption(row):
                members[".txt"] = caption.encode()
            samples.append((_key(row), members))
            size += file.stat().st_size
            if size >= shard_bytes:
                break
        write_shard(shard, samples)
    return used, failed


def _known(
    shard: Path, index: Path, rows: Iterator[dict[str, Any]], fps: float | None, shard_bytes: int
) -> tuple[list[dict[str, Any]], dict[str, str] | None]:
    """Take the rows that an earlier export recorded for a shard; its failures are None if it was of other rows."""
    if not (shard.is_file() and index.is_file()):
        return [], None
    try:
        value = json.loads(index.read_text(encoding="utf-8"))
        count, key, failures = int(value["rows"]), value["key"], dict(value["failed"])
    except (OSError, ValueError, KeyError, TypeError):
        return [], None
    used = list(itertools.islice(rows, max(min(count, _MOST_ROWS), 0)))
    same = len(used) == count > 0 and key == _print(used, fps, shard_bytes)
    return used, failures if same else None


def _print(rows: list[dict[str, Any]], fps: float | None, shard_bytes: int) -> str:
    text = json.dumps([rows, fps, shard_bytes], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _key(row: Mapping[str, Any]) -> str:
    """The name of a clip's files: its id, or a hash of an id that can't be a name."""
    text = str(row["id"])
    safe = 0 < len(text) <= 64 and all(char.isascii() and (char.isalnum() or char in "-_") for char in text)
    return text if safe else hashlib.sha256(text.encode()).hexdigest()[:32]


def _caption(row: Mapping[str, Any]) -> str:
    captions = row.get("captions")
    return " ".join(captions[0].split()) if captions else ""


def _results(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None and name not in _FACTS}


def _all(row: Mapping[str, Any]) -> dict[str, Any]:
    own = {"source": row["path"], "start": row["start"], "stop": row["stop"], "crop": row.get("crop")}
    return {**_results(row), **own, "captions": row.get("captions") or []}
