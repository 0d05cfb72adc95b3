"""Decide which clips each set gets: `scores.parquet` and a recipe become `manifest.parquet` and `sets/`.

No stage runs and no file of a clip is opened. Files of a folder of `hy data run`::

    manifest.parquet    one row a clip: all columns of scores.parquet but its vectors; `duplicate_of`, `concept` and
                        like; for each set `kept_NAME` and `reasons_NAME`, all reasons why not (`rules.REASON`)
    sets/NAME.parquet   the rows of a set, without those columns; `sampling_weight` balances the concepts of this set;
                        a set of images has one row a picture
    sets/NAME.json      the set's thresholds and its funnel, see `funnel.summary`
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from hy_core.errors import HyError
from hy_core.files import Staging

from hy_data.select.choose import Chosen, choose
from hy_data.select.funnel import summary
from hy_data.select.rules import DERIVED, Columns, reasons
from hy_data.select.sets import SetSpec, read_sets
from hy_data.select.steps import Together, run_steps
from hy_data.table import is_vector, open_scores, score_of

_NEEDED = ("id", "start", "stop", "crop", "width", "height", "frames", "status", "stage", "reason")
_KEY = b"hy.sets"


@dataclass(frozen=True)
class Decision:
    """What was decided: `funnel.summary` of each set, and notes about steps that were skipped."""

    sets: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]


def decide(folder: Path | str, recipe: Mapping[str, Any]) -> Decision:
    """Write `manifest.parquet` and `sets/` of a folder that has `scores.parquet`; files appear together.

    `recipe` has the tables `sets`, `duplicates` and `concepts`, as `vars` of a `Recipe` does. Rows aren't held: a
    million need under 2 GB. `MissingError` without scores, `UsageError` for a wrong recipe.
    """
    folder = Path(folder)
    specs = read_sets(recipe.get("sets", {}))
    with open_scores(folder / "scores.parquet") as file:
        schema = file.schema_arrow
        scores = {field.name: score for field in schema if (score := score_of(field)) is not None}
        table = file.read([name for name in schema.names if name in _needed(specs)])
        together = run_steps(file, recipe, folder)
        added = {name: together.columns[name] for name in together.columns.column_names}
        columns = Columns(table, {"usable": _usable(table), **added})
        chosen = choose(specs, columns, scores, folder)
        decision = Decision(tuple(summary(one, table) for one in chosen), together.notes)
        _write(folder, file, columns, chosen, together, decision)
    _remove_old(folder, {spec.name for spec in specs})
    return decision


def read_decision(folder: Path | str) -> Decision:
    """Return what `decide` wrote into a folder; `MissingError` if it has not run there."""
    with open_scores(Path(folder) / "manifest.parquet") as file:
        stored = (file.schema_arrow.metadata or {}).get(_KEY)
    if stored is None:
        raise HyError(f"{folder}/manifest.parquet has no sets", "run hy data decide again")
    value = json.loads(stored)
    return Decision(tuple(value["sets"]), tuple(value["notes"]))


def _needed(specs: Sequence[SetSpec]) -> set[str]:
    names = {*_NEEDED}
    for spec in specs:
        names |= {*spec.scores, *(rule.score for rule in spec.rules)}
    return names - DERIVED.keys()


def _usable(table: pa.Table) -> pa.Array:
    """Why no set can use a clip, null for those that can be used."""
    status, reason = table["status"], pc.coalesce(table["reason"], table["stage"], table["status"])
    return pc.if_else(pc.equal(pc.fill_null(status, ""), "ok"), None, reason).combine_chunks()


def _write(
    folder: Path,
    file: pq.ParquetFile,
    columns: Columns,
    chosen: Sequence[Chosen],
    together: Together,
    decision: Decision,
) -> None:
    notes = {stated["name"]: json.dumps(stated) for stated in decision.sets}
    notes[""] = json.dumps({"sets": decision.sets, "notes": decision.notes})
    weights = {one.spec.name: together.weights(one.kept) for one in chosen}
    with Staging() as staging, ExitStack() as stack:
        writers: dict[str, _Writer] = {}
        for name, note in {"": notes[""], **notes}.items():
            path = folder / "sets" / f"{name}.parquet" if name else folder / "manifest.parquet"
            writers[name] = stack.enter_context(_Writer(staging.file(path), note))
        for stated in decision.sets:
            text = json.dumps(stated, indent=1) + "\n"
            staging.file(folder / "sets" / f"{stated['name']}.json").write_text(text)
        for part, rows in _parts(file):
            for name in together.columns.column_names:
                part = part.append_column(name, together.columns[name][rows])
            manifest = part
            for one in chosen:
                name, kept = one.spec.name, one.kept[rows]
                why = reasons(one.rules, one.failed, columns, rows)
                manifest = manifest.append_column(f"kept_{name}", pa.array(kept))
                manifest = manifest.append_column(f"reasons_{name}", why)
                own = part
                if (weight := weights[name]) is not None:
                    place = part.schema.get_field_index("sampling_weight")
                    own = own.set_column(place, "sampling_weight", pa.array(weight[rows]))
                own = own.filter(pa.array(kept))
                writers[name].add(_pictures(own, one.spec) if one.spec.kind == "image" else own)
            writers[""].add(manifest)
        stack.close()


def _parts(file: pq.ParquetFile) -> Iterator[tuple[pa.Table, slice]]:
    """Yield the row groups of a table without its vectors, with their rows."""
    names = [field.name for field in file.schema_arrow if not is_vector(field)]
    start = 0
    if not file.num_row_groups:
        yield file.read(names), slice(0, 0)
    for group in range(file.num_row_groups):
        part = file.read_row_group(group, names)
        yield part, slice(start, start + len(part))
        start += len(part)


class _Writer:
    """A Parquet file whose schema is that of its first rows, with a note in its metadata."""

    def __init__(self, path: Path, note: str) -> None:
        self.path, self.note = path, note
        self._out: pq.ParquetWriter | None = None

    def add(self, table: pa.Table) -> None:
        if self._out is None:
            self._schema = table.schema.with_metadata({**(table.schema.metadata or {}), _KEY: self.note})
            self._out = pq.ParquetWriter(self.path, self._schema, compression="zstd")
        if len(table):
            self._out.write_table(table.cast(self._schema))

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *error: object) -> None:
        if self._out is not None:
            self._out.close()


def _pictures(table: pa.Table, spec: SetSpec) -> pa.Table:
    """Return one row a picture: `time` is the frame's in the file, null for a picture file; `clip` is its clip's id."""
    is_file = np.asarray(pc.fill_null(pc.equal(table["frames"], 1), False))
    repeat = np.where(is_file, 1, spec.pictures)
    index = np.repeat(np.arange(len(table)), repeat)
    number = np.arange(len(index)) - np.repeat(np.cumsum(repeat) - repeat, repeat)
    rows = table.take(pa.array(index))
    start = np.asarray(rows["start"].cast(pa.float64()), np.float64)
    length = np.asarray(rows["stop"], np.float64) - start
    time = np.where(is_file[index], np.nan, start + length * (number + 0.5) / spec.pictures)
    names = pc.if_else(
        pa.array(is_file[index]),
        rows["id"],
        pc.binary_join_element_wise(rows["id"], pa.array(number).cast(pa.string()), "-"),
    )
    place = rows.schema.get_field_index("id")
    clip = rows["id"]
    return (
        rows.set_column(place, "id", names)
        .append_column("clip", clip)
        .append_column("time", pa.array(time, from_pandas=True))
    )


def _remove_old(folder: Path, names: set[str]) -> None:
    """Remove the files of sets that the recipe has no more."""
    for path in (folder / "sets").glob("*.parquet"):
        if path.stem in names:
            continue
        with open_scores(path) as file:
            ours = _KEY in (file.schema_arrow.metadata or {})
        if ours:
            path.unlink()
            path.with_suffix(".json").unlink(missing_ok=True)
