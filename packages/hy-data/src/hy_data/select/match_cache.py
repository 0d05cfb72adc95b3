"""Matches of pairs of clips, computed from their signatures and kept in a file, so that new thresholds cost nothing."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import astuple, fields
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hy_core.errors import HyError, UsageError
from hy_core.files import atomic

from hy_data.select.matching import VERSION, Frames, Match, match
from hy_data.select.signature import decode

COLUMN = "signature"
_HELD = 512  # clips whose pictures and features are in memory, about 2 MB each
_BATCH = 8192  # pairs between two writings of the file


def matches(table: pa.Table, pairs: np.ndarray, folder: Path | None) -> list[Match]:
    """Return the match of each pair of rows of a table; pairs are int [P, 2].

    Signatures are read from the table's column, else from scores.parquet in `folder`, the output folder of
    `hy data run`; matches that were computed once are read from its cache/select. `UsageError` for a clip without a
    signature.
    """
    if not len(pairs):
        return []
    data = _signatures(table, np.unique(pairs), folder)
    digests = {row: hashlib.blake2b(one, digest_size=8).hexdigest() for row, one in data.items()}
    # In the order of contents: the same two clips match the same in every table.
    ordered = [tuple(sorted(pair, key=lambda row: (digests[row], row))) for pair in pairs.tolist()]
    keys = [digests[first] + digests[second] for first, second in ordered]
    file = folder / "cache" / "select" / f"matches-{VERSION}.parquet" if folder else None
    known = _read(file)
    frames = lru_cache(_HELD)(lambda row: Frames(decode(data[row])))
    missing = (at for at, key in enumerate(keys) if key not in known)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        while batch := list(islice(missing, _BATCH)):
            work = threads.map(lambda at: match(*(frames(row) for row in ordered[at])), batch)
            known.update(zip((keys[at] for at in batch), work, strict=True))
            _write(file, known)
    return [known[key] for key in keys]


def _signatures(table: pa.Table, rows: np.ndarray, folder: Path | None) -> dict[int, bytes]:
    """The signatures of rows, by row."""
    if COLUMN in table.column_names:
        column = table[COLUMN].take(pa.array(rows))
        found = {int(row): one for row, one in zip(rows, _bytes(column), strict=True)}
    else:
        wanted = dict(zip(table["id"].take(pa.array(rows)).to_pylist(), rows.tolist(), strict=True))
        found = {wanted[one]: data for one, data in _stored(folder, set(wanted))}
    missing = next((int(row) for row in rows if not found.get(int(row))), None)
    if missing is not None:
        raise UsageError(
            f"the clip {table['id'][missing]} has no signature",
            'add the stage signature to the recipe, or set [duplicates] method = "vector"',
        )
    return found


def _stored(folder: Path | None, ids: set[str]) -> Iterator[tuple[str, bytes]]:
    """The signatures of clips in scores.parquet, one row group in memory at a time."""
    path = folder / "scores.parquet" if folder else None
    if path is None or not path.is_file():
        return
    with pq.ParquetFile(path, memory_map=True) as file:
        if COLUMN not in file.schema_arrow.names:
            return
        for group in range(file.num_row_groups):
            here = file.read_row_group(group, ["id"])["id"].to_pylist()
            chosen = [at for at, one in enumerate(here) if one in ids]
            if chosen:
                column = file.read_row_group(group, [COLUMN])[COLUMN].take(pa.array(chosen))
                yield from zip((here[at] for at in chosen), _bytes(column), strict=True)


def _bytes(column: pa.ChunkedArray) -> Iterator[bytes]:
    """Signatures as bytes; the column holds lists of numbers or bytes."""
    is_list = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
    for value in column:
        if not value.is_valid:
            yield b""
        elif is_list:
            yield np.asarray(value.values).astype(np.uint8).tobytes()
        else:
            yield value.as_py()


def _read(file: Path | None) -> dict[str, Match]:
    """Matches of a file by key; none if there is no such file, or one that is damaged: it is only a cache."""
    known: dict[str, Match] = {}
    if file is not None:
        with suppress(OSError, pa.ArrowException, KeyError, TypeError):
            table = pq.read_table(file)
            columns = [table[one.name].to_pylist() for one in fields(Match)]
            for key, *values in zip(table["key"].to_pylist(), *columns, strict=True):
                known[key] = Match(*values)
    return known


def _write(file: Path | None, known: dict[str, Match]) -> None:
    if file is None:
        return
    values = zip(*map(astuple, known.values()), strict=True)
    columns = {one.name: list(column) for one, column in zip(fields(Match), values, strict=True)}
    table = pa.table({"key": list(known)} | columns)
    try:
        with atomic(file) as temporary:
            pq.write_table(table, temporary, compression="zstd")
    except HyError:
        return  # results don't depend on the cache
