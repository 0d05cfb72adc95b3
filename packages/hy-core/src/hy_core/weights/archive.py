"""Open the archives of `torch.save`: tensors are mapped from the file, sizes and checksums are verified.

Every size that a file states is checked against the bytes that it has, and the checksums of the zip container, which
torch itself ignores, are compared.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from hy_core.weights.pickled import (
    MAX_INSTRUCTIONS,
    ArchiveError,
    Storage,
    TensorRecord,
    UnsafeArchiveError,
    interpret,
)

__all__ = ["Archive", "ArchiveError", "TensorRecord", "UnsafeArchiveError", "open_archive"]

#: Bytes of the list of tensors in a zip archive; their values are in records of their own.
MAX_PICKLE = 64 << 20
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_CHUNK = 8 << 20


class _Span(NamedTuple):
    """Where a storage's values are in the file; `crc` None where the file has no checksum of them."""

    start: int
    length: int
    crc: int | None


@dataclass
class Archive:
    """An opened archive: `content` is what was saved, with a `TensorRecord` in place of each tensor."""

    path: Path
    content: Any
    _spans: Mapping[str, _Span] = field(repr=False)
    _bytes: torch.UntypedStorage | None = field(default=None, repr=False)

    def tensor(self, record: TensorRecord) -> Tensor:
        """Map a tensor from the file; copy its values only where the file doesn't align them.

        Raises ArchiveError if the file lacks some of its values.

        The tensor has any shape.
        """
        span = self._span(record.storage)
        held = record.storage.nbytes // record.dtype.itemsize
        numel, last = 1, record.offset
        for size, stride in zip(record.shape, record.stride, strict=True):
            numel *= size
            last += (size - 1) * stride
        if not numel and max(record.shape) < 1 << 31:
            return torch.empty(record.shape, dtype=record.dtype)
        if not numel or last >= held or numel > held:
            raise ArchiveError(f"a tensor of {list(record.shape)[:6]} has only {held:,} values")
        part = self._mapped()[span.start : span.start + span.length]
        if span.start % record.dtype.itemsize:
            part = part.clone()
        empty = torch.empty(0, dtype=record.dtype)
        return empty.set_(part, record.offset, record.shape, record.stride)

    def verify(self, records: Iterable[TensorRecord]) -> None:
        """Compare the checksums of these tensors' values; raises ArchiveError. Reads all of them once."""
        spans = {record.storage.key: self._span(record.storage) for record in records}
        wanted = [(key, span) for key, span in spans.items() if span.crc is not None]
        with ThreadPoolExecutor(4) as pool:
            sums = pool.map(lambda one: _crc(self.path, one[1]), wanted)
            for (key, span), found in zip(wanted, sums, strict=True):
                if found != span.crc:
                    raise ArchiveError(f"the checksum of record data/{key} is wrong")

    def _span(self, storage: Storage) -> _Span:
        span = self._spans.get(storage.key)
        if span is None:
            raise ArchiveError(f"record data/{storage.key[:40]} is missing")
        if span.length < storage.nbytes:
            raise ArchiveError(
                f"record data/{storage.key[:40]} has {span.length:,} bytes instead of {storage.nbytes:,}"
            )
        return span

    def _mapped(self) -> torch.UntypedStorage:
        if self._bytes is None:
            size = self.path.stat().st_size
            mapped = torch.UntypedStorage.from_file(str(self.path), False, size)
            assert isinstance(mapped, torch.UntypedStorage)
            self._bytes = mapped
        return self._bytes


def open_archive(path: Path) -> Archive:
    """Open an archive of `torch.save`, in the zip format or the one from before 2020; no values are read.

    Raises ArchiveError for a damaged one, UnsafeArchiveError for one with objects besides tensors and plain data.
    """
    try:
        return _open_zip(path) if zipfile.is_zipfile(path) else _open_legacy(path)
    except (zipfile.BadZipFile, OSError, EOFError, struct.error, ValueError, NotImplementedError) as error:
        raise ArchiveError(" ".join(str(error).split())[:80] or type(error).__name__) from None


def _open_zip(path: Path) -> Archive:
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        infos = {info.filename: info for info in archive.infolist()}
        if len(infos) != len(archive.infolist()):
            raise ArchiveError("a record is there twice")
        pickles = [name for name in infos if name.split("/", 1)[-1] == "data.pkl"]
        if len(pickles) != 1:
            raise ArchiveError("it has no list of tensors, so it isn't an archive of torch.save")
        root = pickles[0].removesuffix("data.pkl")
        order = infos.get(f"{root}byteorder")
        if order is not None and _record(file, order) != b"little":
            raise ArchiveError("it was written on a big-endian machine")
        content = interpret(BytesIO(_record(file, infos[pickles[0]])))
        prefix = f"{root}data/"
        spans = {
            name.removeprefix(prefix): _locate(file, info)
            for name, info in infos.items()
            if name.startswith(prefix)
        }
    return Archive(path, content, spans)


def _record(file: BinaryIO, info: zipfile.ZipInfo) -> bytes:
    """The bytes of a small record; its checksum is verified."""
    span = _locate(file, info)
    if span.length > MAX_PICKLE:
        raise ArchiveError(f"record {info.filename[:60]!r} has {span.length:,} bytes")
    file.seek(span.start)
    found = file.read(span.length)
    if span.crc is not None and zlib.crc32(found) != span.crc:
        raise ArchiveError(f"the checksum of record {info.filename[:60]!r} is wrong")
    return found


def _locate(file: BinaryIO, info: zipfile.ZipInfo) -> _Span:
    """Where a stored record's bytes are: after its local header, whose length varies.

    torch writes 0 for a checksum that it was asked not to compute.
    """
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        raise ArchiveError(f"record {info.filename[:60]!r} is compressed")
    file.seek(info.header_offset)
    header = file.read(30)
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise ArchiveError(f"record {info.filename[:60]!r} has no header")
    name, extra = struct.unpack("<HH", header[26:30])
    start = info.header_offset + 30 + int(name) + int(extra)
    if start + info.file_size > file.seek(0, os.SEEK_END):
        raise ArchiveError(f"record {info.filename[:60]!r} reaches beyond the end")
    return _Span(start, info.file_size, info.CRC or None)


def _open_legacy(path: Path) -> Archive:
    """The format from before 2020: pickles in a row, then of each storage its count and its values."""
    with path.open("rb") as file:
        if interpret(file) != _LEGACY_MAGIC or interpret(file) != _LEGACY_PROTOCOL:
            raise ArchiveError("it isn't an archive of torch.save")
        interpret(file)  # about the machine that wrote it
        content = interpret(file)
        keys = interpret(file)
        if not isinstance(keys, list) or len(keys) > MAX_INSTRUCTIONS:
            raise ArchiveError("it has no list of storages")
        sizes = {record.storage.key: record.storage.dtype.itemsize for record in _records(content)}
        spans: dict[str, _Span] = {}
        end = path.stat().st_size
        for key in keys:
            head = file.read(8)
            if len(head) < 8 or not isinstance(key, str):
                raise ArchiveError("its list of storages ends too early")
            start, length = file.tell(), int.from_bytes(head, "little") * sizes.get(key, 1)
            if length > end - start:
                raise ArchiveError(f"storage {key[:40]} reaches beyond the end")
            spans[key] = _Span(start, length, None)
            file.seek(start + length)
    return Archive(path, content, spans)


def _records(content: Any) -> list[TensorRecord]:
    """All tensors in what was saved, however deep; containers that contain themselves are visited once."""
    found, seen, todo = [], set(), [content]
    while todo:
        one = todo.pop()
        if isinstance(one, TensorRecord):
            found.append(one)
        elif isinstance(one, dict | list | tuple) and id(one) not in seen:
            seen.add(id(one))
            todo += one.values() if isinstance(one, dict) else one
    return found


def _crc(path: Path, span: _Span) -> int:
    """The CRC-32 of a part of a file."""
    crc, left = 0, span.length
    with path.open("rb") as file:
        file.seek(span.start)
        while left:
            block = file.read(min(_CHUNK, left))
            if not block:
                return -1
            crc = zlib.crc32(block, crc)
            left -= len(block)
    return crc
