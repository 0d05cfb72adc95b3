"""The table of scores: one row a clip, as a Parquet file with a typed column for every score and result.

    write_scores(rows, path, scores)   rows of any number, in memory that doesn't grow with it
    read_scores(path, columns)         a pyarrow table
    score_of(field)                    what a column means and which values are wanted: a `Score`

Columns of every table are in `BASE`, then come the others by name. A column's type follows from all of its values,
never from their order: bool, int64, float64 (whole numbers among others; NaN is null), string, list<float32> for lists
of numbers, list<uint8>, list<float16> or list<float32> for arrays, and a JSON text for everything else and for values
of different kinds.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from hy_core.data import Score
from hy_core.errors import HyError, MissingError
from hy_core.files import atomic

from hy_data import columns

BASE: dict[str, pa.DataType] = {
    "id": pa.string(),
    "content": pa.string(),
    "path": pa.string(),
    "start": pa.float64(),
    "stop": pa.float64(),
    "crop": pa.list_(pa.int32()),
    "width": pa.int32(),
    "height": pa.int32(),
    "fps": pa.float64(),
    "frames": pa.int32(),
    "has_audio": pa.bool_(),
    "captions": pa.list_(pa.string()),
    "status": pa.string(),
    "stage": pa.string(),
    "reason": pa.string(),
    "tries": pa.int32(),
}
"""Columns of every table, null where a row has no such value. `content` is the start of the SHA-256 of the file; `path`
is text of `path_text`; `start` and `stop` are seconds; `crop` is left, top, right, bottom; `status` is ok, filtered or
failed, the latter two in `stage` for a `reason`."""
GROUP_ROWS = 16384
"""Rows of a row group, and rows that are held while a table is written."""
_BYTES_PATH = "percent-bytes:"


def write_scores(
    rows: Iterable[Mapping[str, Any]], path: Path | str, scores: Iterable[tuple[str, Score]] = ()
) -> int:
    """Write rows, sorted by their `id`, atomically; return their number.

    Values are those of JSON, numbers of NumPy, paths and arrays [n] or [m, n]. `scores` are pairs of a stage's name and
    one of its scores; they are stored with the columns. Rows that come sorted are streamed once. `HyError` for a row
    without an id, for one id twice, and for what can't be written.
    """
    with atomic(path) as temporary:
        blocks = _Blocks(temporary.parent)
        for block in batched(rows):
            blocks.add(block)
        schema = _schema(blocks.kinds(), scores)
        order = _order(blocks.ids, Path(path))
        batches = blocks.batches(schema)
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for batch in batches if order is None else _reordered(batches, order, temporary.parent):
                writer.write_batch(batch, row_group_size=GROUP_ROWS)
        return sum(map(len, blocks.ids))


def read_scores(path: Path | str, names: Sequence[str] | None = None) -> pa.Table:
    """Read a table, or these of its columns; `MissingError` if there is none, `HyError` if it can't be read."""
    with open_scores(path) as file:
        have = set(file.schema_arrow.names)
        return file.read(None if names is None else [name for name in names if name in have])


def open_scores(path: Path | str) -> pq.ParquetFile:
    """Open a table to read it by row groups; errors as `read_scores`."""
    try:
        return pq.ParquetFile(path, memory_map=True)
    except FileNotFoundError:
        raise MissingError(f"no such table: {path}", "hy data run writes it") from None
    except (OSError, pa.ArrowException) as error:
        raise HyError(f"{path} can't be read as Parquet ({str(error)[:80]})") from error


def score_of(field: pa.Field) -> Score | None:
    """Return the score that a column holds, None for other columns."""
    notes = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    if "description" not in notes:
        return None
    better: Any = notes.get("better", "")
    return Score(field.name, notes["description"], better, notes.get("unit", ""))


def stage_of(field: pa.Field) -> str:
    """Return the stage that a column comes from, "" if it isn't known."""
    return (field.metadata or {}).get(b"stage", b"").decode()


def is_vector(field: pa.Field) -> bool:
    """Whether a column holds arrays of a stage, such as embeddings."""
    return b"vector" in (field.metadata or {})


def path_text(path: Path | str) -> str:
    """Return a path as UTF-8 text for a table; `read_path` returns the path, also of a name that isn't UTF-8."""
    text = str(path)
    try:
        text.encode()
    except UnicodeEncodeError:
        return _BYTES_PATH + quote_from_bytes(os.fsencode(text))
    return _BYTES_PATH + quote_from_bytes(text.encode()) if text.startswith(_BYTES_PATH) else text


def read_path(text: str) -> Path:
    """Return the path of a text of `path_text`."""
    if text.startswith(_BYTES_PATH):
        return Path(os.fsdecode(unquote_to_bytes(text[len(_BYTES_PATH) :])))
    return Path(text)


def batched(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """Yield rows in lists of a row group."""
    source = iter(rows)
    while block := list(islice(source, GROUP_ROWS)):
        yield block


class _Blocks:
    """Blocks of rows as Arrow files in a folder, until all rows have told the types of their columns."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ids: list[pa.Array] = []
        self._seen: list[dict[str, str]] = []

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        names = dict.fromkeys(name for row in rows for name in row)
        kinds: dict[str, str] = {}
        arrays: dict[str, pa.Array] = {}
        for name in names:
            values = [row.get(name) for row in rows]
            if name in BASE:
                arrays[name] = _base_column(name, values)
            else:
                kinds[name], arrays[name] = columns.read(values)
        self.ids.append(_ids(arrays.get("id"), len(rows)))
        table = pa.table(arrays)
        with (
            pa.OSFile(str(self._file(len(self._seen))), "wb") as file,
            pa.ipc.new_file(file, table.schema) as out,
        ):
            out.write_table(table)
        self._seen.append(kinds)

    def kinds(self) -> dict[str, str]:
        """The kind of each column that isn't of every table, by name."""
        found: dict[str, set[str]] = {}
        for kinds in self._seen:
            for name, kind in kinds.items():
                found.setdefault(name, set()).add(kind)
        return {name: columns.unite(found[name]) for name in sorted(found)}

    def batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        united = self.kinds()
        for index, kinds in enumerate(self._seen):
            with pa.memory_map(str(self._file(index))) as file:
                table = pa.ipc.open_file(file).read_all()
            arrays = []
            for field in schema:
                name = field.name
                if name not in table.column_names:
                    arrays.append(pa.nulls(len(table), field.type))
                    continue
                column = table[name].combine_chunks()
                arrays.append(column if name in BASE else columns.convert(column, kinds[name], united[name]))
            yield pa.record_batch(arrays, schema=schema)

    def _file(self, index: int) -> Path:
        return self.folder / f"{index}.arrow"


def _base_column(name: str, values: list[Any]) -> pa.Array:
    if name == "path":
        values = [None if one is None else path_text(one) for one in values]
    try:
        return columns.typed(values, BASE[name])
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise HyError(f"a row's {name} is not {BASE[name]}: {str(error)[:80]}") from error


def _ids(ids: pa.Array | None, count: int) -> pa.Array:
    if ids is None or ids.null_count or pc.any(pc.equal(ids, "")).as_py():
        raise HyError(f"one of {count} rows of the table has no id")
    return ids


def _order(ids: list[pa.Array], path: Path) -> np.ndarray | None:
    """The order that sorts all rows by id, None if they are sorted."""
    if not ids:
        return None
    every = pa.chunked_array(ids).combine_chunks()
    order = None
    if len(every) > 1 and pc.any(pc.less_equal(every[1:], every[:-1])).as_py():
        order = pc.sort_indices(every).to_numpy().astype(np.int64)
        every = every.take(pa.array(order))
        twice = pc.equal(every[1:], every[:-1]).index(True).as_py() + 1
        if twice:
            raise HyError(f"{path}: the clip {every[twice].as_py()} comes twice")
    return order


def _schema(kinds: Mapping[str, str], scores: Iterable[tuple[str, Score]]) -> pa.Schema:
    notes: dict[str, dict[str, str]] = {}
    for stage, score in scores:
        note = {"stage": stage, "description": score.description, "better": score.better, "unit": score.unit}
        notes[score.name] = note
    fields = [pa.field(name, kind) for name, kind in BASE.items()]
    for name, kind in kinds.items():
        note = {**notes.get(name, {}), **({"vector": "1"} if kind in columns.VECTORS else {})}
        fields.append(pa.field(name, columns.TYPES[kind], metadata=note or None))
    return pa.schema(fields)


def _reordered(
    batches: Iterator[pa.RecordBatch], order: np.ndarray, folder: Path
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of batches in another order, from one file that is mapped into memory."""
    whole = folder / "unsorted.arrow"
    first_batch = next(batches)
    with pa.OSFile(str(whole), "wb") as file, pa.ipc.new_file(file, first_batch.schema) as out:
        out.write_batch(first_batch)
        for batch in batches:
            out.write_batch(batch)
    with pa.memory_map(str(whole)) as file:
        reader = pa.ipc.open_file(file)
        stored = [reader.get_batch(index) for index in range(reader.num_record_batches)]
        ends = np.cumsum([len(batch) for batch in stored])
        for first in range(0, len(order), GROUP_ROWS):
            wanted = order[first : first + GROUP_ROWS]
            place = np.searchsorted(ends, wanted, side="right")
            parts, origin = [], []
            for index in np.unique(place):
                own = np.flatnonzero(place == index)
                parts.append(stored[index].take(pa.array(wanted[own] - (ends[index] - len(stored[index])))))
                origin.append(own)
            back = np.argsort(np.concatenate(origin))
            yield pa.concat_batches(parts).take(pa.array(back))
