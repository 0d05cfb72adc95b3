"""WebDataset: tar shards whose members of one name but different suffixes are one sample."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hy_core.data import ClipRecord
from hy_core.errors import HyError, UsageError
from hy_core.files import atomic

from hy_data.formats.folder import MEDIA
from hy_data.formats.lists import CAPTION_KEYS

_MOST_TEXT = 16 << 20  # bytes of a caption or JSON member
_MOST_MEDIA = 64 << 30
_PIECE = 1 << 20


def write_shard(path: Path, samples: Iterable[tuple[str, Mapping[str, Path | bytes]]]) -> None:
    """Write samples (key, suffix to file or bytes) as a tar file, atomically.

    The same samples give the same bytes: times and owners are zero, the order is that of the samples, suffixes sorted.
    """
    with atomic(path) as temporary, tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
        for key, members in samples:
            for suffix in sorted(members):
                member, value = tarfile.TarInfo(f"{key}{suffix}"), members[suffix]
                member.mode = 0o644
                if isinstance(value, bytes):
                    member.size = len(value)
                    tar.addfile(member, io.BytesIO(value))
                else:
                    member.size = value.stat().st_size
                    with value.open("rb") as file:
                        tar.addfile(member, file)


def unpack(tars: Sequence[Path], folder: Path) -> tuple[list[ClipRecord], list[str]]:
    """Write the clips of shards to `folder` and return their records, in the order of the shards, and notes.

    Files are named by the hash of their content, whatever the members are called. Links, devices and members of unknown
    suffixes are left out. `UsageError` for a damaged shard.
    """
    records, left_out = [], 0
    for tar in tars:
        try:
            with tarfile.open(tar, "r|*") as members:
                for key, sample in _samples(members, folder):
                    if "file" in sample:
                        records.append(_record(sample, f"{tar}, {key[:80]!r}"))
                    else:
                        left_out += 1
        except (tarfile.TarError, EOFError, OSError) as error:
            raise UsageError(f"{tar} can't be read as a tar file ({str(error)[:80]})") from error
    return records, [f"{left_out} samples have no clip"] if left_out else []


def _samples(members: tarfile.TarFile, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    last, sample = None, dict[str, Any]()
    for member in members:
        place, _, name = member.name.rpartition("/")
        stem, dot, suffix = name.partition(".")
        key = f"{place}/{stem}"
        if not member.isfile() or not dot:
            continue
        if key != last and last is not None:
            yield last, sample
            sample = {}
        last = key
        file = members.extractfile(member)
        if file is None:
            continue
        kind = "." + suffix.lower().rpartition(".")[2]
        if kind in MEDIA:
            sample["file"] = _keep(file, kind, folder)
        elif kind in (".txt", ".json", ".cls"):
            if member.size > _MOST_TEXT:
                raise HyError(f"{member.name[:80]!r} has more than {_MOST_TEXT >> 20} MB")
            sample[kind] = file.read()
    if last is not None:
        yield last, sample


def _keep(file: Any, suffix: str, folder: Path) -> Path:
    digest, size = hashlib.sha256(), 0
    folder.mkdir(parents=True, exist_ok=True)
    with atomic(folder / "unpacking") as temporary:
        with temporary.open("wb") as out:
            while piece := file.read(_PIECE):
                size += len(piece)
                if size > _MOST_MEDIA:
                    raise HyError(f"a clip in a shard has more than {_MOST_MEDIA >> 30} GB")
                digest.update(piece)
                out.write(piece)
    target = folder / f"{digest.hexdigest()[:32]}{suffix}"
    (folder / "unpacking").replace(target)
    return target


def _record(sample: Mapping[str, Any], where: str) -> ClipRecord:
    row: dict[str, Any] = {}
    if ".json" in sample:
        try:
            row = json.loads(sample[".json"])
        except (ValueError, RecursionError):
            raise UsageError(f"{where}: its .json is not JSON") from None
        if not isinstance(row, dict):
            raise UsageError(f"{where}: its .json is not an object")
    texts: Any = next((row[key] for key in CAPTION_KEYS if row.get(key)), None)
    if texts is None and ".txt" in sample:
        texts = sample[".txt"].decode("utf-8", "replace").strip()
    captions = [texts] if isinstance(texts, str) else texts if isinstance(texts, list) else []
    facts = ("path", "span", "crop", "rejected", "start", "stop", *CAPTION_KEYS)
    results = {key: value for key, value in row.items() if key not in facts}
    return ClipRecord(
        sample["file"],
        captions=tuple(one for one in captions if isinstance(one, str) and one),
        results=results,
    )
