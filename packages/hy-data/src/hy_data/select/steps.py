"""Steps that look at all clips together before sets are decided: near-duplicates and concepts, as columns."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from hy_core import options
from hy_core.errors import UsageError
from hy_core.files import atomic

from hy_data.select.concepts import ConceptOptions, assign_concepts, balanced_weights
from hy_data.select.duplicates import DuplicateOptions, find_duplicates
from hy_data.select.matching import VERSION

_FACTS = ("id", "status", "width", "height", "start", "stop", "frames")


@dataclass(frozen=True)
class Together:
    """What the steps found, for the rows of the table of scores.

    `columns`: `duplicate_of`, `duplicate_how`, `duplicate_similarity`, `concept` and `sampling_weight`, of those steps
    that ran; `notes`: lines about those that didn't.
    """

    columns: pa.Table
    balance: ConceptOptions
    notes: tuple[str, ...]

    def weights(self, kept: np.ndarray) -> np.ndarray | None:
        """Return how often to draw each clip of a set, float32 [N] with mean 1 over the kept; None without concepts."""
        if "concept" not in self.columns.column_names:
            return None
        concept = np.asarray(pc.fill_null(self.columns["concept"], -1))
        weights = np.zeros(len(kept), np.float32)
        if kept.any():
            weights[kept] = balanced_weights(concept[kept], self.balance.alpha, self.balance.cap)
        return weights


def run_steps(file: pq.ParquetFile, recipe: Mapping[str, Any], folder: Path) -> Together:
    """Find near-duplicates and concepts as the tables `duplicates` and `concepts` of a recipe say.

    A step whose table is empty or not in the recipe is skipped, with a note, if its columns aren't in the scores.
    `UsageError` for a wrong table. What takes long is kept in cache/select of `folder`.
    """
    duplicates = _options("duplicates", DuplicateOptions, recipe)
    balance = _options("concepts", ConceptOptions, recipe)
    names = file.schema_arrow.names
    wanted = [*_FACTS, duplicates.vector, duplicates.quality, balance.vector]
    columns: dict[str, pa.Array | pa.ChunkedArray] = {}
    notes = []
    table = file.read([name for name in names if name in wanted])
    if duplicates.method == "off":
        notes.append("near-duplicates are kept: [duplicates] method is off")
    elif why := _missing(recipe, "duplicates", {duplicates.vector, "signature"}, names):
        notes.append(f"near-duplicates are kept: {why}")
    else:
        found = _stored_duplicates(file, table, duplicates, folder)
        for own, name in (
            ("duplicate_of", "duplicate_of"),
            ("how", "duplicate_how"),
            ("similarity", "duplicate_similarity"),
        ):
            columns[name] = _joined(table["id"], found, own)
    if why := _missing(recipe, "concepts", {balance.vector}, names):
        notes.append(f"concepts are not balanced: {why}")
    else:
        found = assign_concepts(table, balance, folder)
        for name in ("concept", "sampling_weight"):
            columns[name] = _joined(table["id"], found, name)
    return Together(pa.table(columns), balance, tuple(notes))


def _stored_duplicates(
    file: pq.ParquetFile, table: pa.Table, duplicates: DuplicateOptions, folder: Path
) -> pa.Table:
    """`find_duplicates`, or what it found earlier in the same table: new thresholds of sets don't search again."""
    key = hashlib.blake2b(
        repr((duplicates, VERSION, file.metadata.to_dict()["row_groups"])).encode(), digest_size=8
    )
    for column in table.columns:
        for chunk in column.chunks:
            for buffer in chunk.buffers():
                key.update(buffer or b"")
    store = folder / "cache" / "select" / f"duplicates-{key.hexdigest()}.parquet"
    try:
        return pq.read_table(store)
    except (OSError, pa.ArrowException):
        found = find_duplicates(table, duplicates, folder)
    with atomic(store) as temporary:
        pq.write_table(found, temporary)
    return found


def _options(name: str, kind: Any, recipe: Mapping[str, Any]) -> Any:
    table = recipe.get(name, {})
    if not isinstance(table, Mapping):
        raise UsageError(f"[{name}] is not a table")
    labels = {key: f"[{name}] {key}" for key in table}
    return options.parse(name, kind, table, labels)


def _missing(recipe: Mapping[str, Any], table: str, wanted: set[str], names: list[str]) -> str | None:
    """Why a step can't run; None if it can, and if the recipe asks for it."""
    missing = sorted(wanted - set(names))
    return f"no stage made {' and '.join(missing)}" if missing and not recipe.get(table) else None


def _joined(ids: pa.ChunkedArray, found: pa.Table, name: str) -> pa.Array:
    place = pc.index_in(ids, value_set=found["id"].combine_chunks())
    column = found[name].combine_chunks()
    return column.take(place.combine_chunks())
