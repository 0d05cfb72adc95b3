"""Rules that a clip must pass to be in a set, evaluated on whole columns, and the reasons of those that don't."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Sense = Literal["min", "max", "any", "none", "is", "null"]

REASON = pa.struct(
    [
        ("score", pa.string()),
        ("sense", pa.string()),
        ("value", pa.float64()),
        ("threshold", pa.float64()),
        ("found", pa.string()),
    ]
)
"""Why a clip isn't in a set: `value` of `score` is beyond `threshold` (`sense` min or max; null if it wasn't measured),
or `found` is what isn't wanted (the others)."""

LABELS = {
    "usable": ("passed all stages", "{}"),
    "duplicate_of": ("no near-duplicate", "near-duplicate of {}"),
}
"""Of the rules that ask for no value: their descriptions, and their reasons by what was found."""


@dataclass(frozen=True)
class Rule:
    """A condition on the column `score`.

    min, max: the value is at least, at most `threshold`. any, none: the value is, is not one of `choices`. is: it is
    true. null: there is none. `keep_missing`: clips without a value pass. `solved`: the threshold comes from the
    distribution of the scores.
    """

    score: str
    sense: Sense
    threshold: float | None = None
    choices: tuple[str, ...] = ()
    keep_missing: bool = False
    solved: bool = False

    def passes(self, columns: Columns) -> np.ndarray:
        """Return which clips pass, bool [N]."""
        if self.sense in ("min", "max"):
            values = columns.numbers(self.score)
            assert self.threshold is not None
            with np.errstate(invalid="ignore"):
                passed = values >= self.threshold if self.sense == "min" else values <= self.threshold
            return passed | np.isnan(values) if self.keep_missing else passed
        texts = columns.texts(self.score)
        missing = np.asarray(pc.is_null(texts))
        if self.sense == "null":
            return missing
        choices = ("true",) if self.sense == "is" else self.choices
        chosen = np.asarray(pc.is_in(texts, value_set=pa.array(choices, pa.string())))
        passed = (chosen != (self.sense == "none")) & ~missing
        return passed | missing if self.keep_missing else passed

    def describe(self) -> str:
        """Return the rule as a short text such as "blur >= 12.5"."""
        if self.sense in ("min", "max"):
            return f"{self.score} {'>=' if self.sense == 'min' else '<='} {self.threshold:.4g}"
        if self.sense in ("is", "null"):
            return LABELS.get(self.score, (self.score,))[0]
        return f"{self.score} {'in' if self.sense == 'any' else 'not in'} {', '.join(self.choices)}"


class Columns:
    """Columns of a table by name, as numbers or as text, with facts that follow from others (see `DERIVED`).

    `extra` are further columns [rows].
    """

    def __init__(self, table: pa.Table, extra: Mapping[str, np.ndarray | pa.Array] | None = None) -> None:
        self.table = table
        self.extra: dict[str, Any] = dict(extra or {})
        self._numbers: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.table)

    def __contains__(self, name: str) -> bool:
        return name in self.extra or name in DERIVED or name in self.table.column_names

    def numbers(self, name: str) -> np.ndarray:
        """Return float64 [N], NaN where there is no value; true is 1."""
        if name not in self._numbers:
            self._numbers[name] = self._read(name)
        return self._numbers[name]

    def texts(self, name: str) -> pa.Array:
        """Return a string array; true and false for a column of truth."""
        column = self.extra[name] if name in self.extra else self.table[name]
        if isinstance(column, np.ndarray):
            column = pa.array(column)
        if isinstance(column, pa.ChunkedArray):
            column = column.combine_chunks()
        return column.cast(pa.string())

    def is_number(self, name: str) -> bool:
        """Whether a column has numbers or truth."""
        if name in DERIVED:
            return True
        column = self.extra[name] if name in self.extra else self.table[name]
        kind = pa.array(column[:0]).type if isinstance(column, np.ndarray) else column.type
        return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))

    def _read(self, name: str) -> np.ndarray:
        if name in self.extra:
            return np.asarray(self.extra[name], np.float64)
        if name not in self.table.column_names:
            return DERIVED[name](self)
        column = self.table[name]
        if pa.types.is_boolean(column.type):
            column = column.cast(pa.uint8())
        return np.asarray(column.cast(pa.float64()), np.float64)


def _size(columns: Columns) -> tuple[np.ndarray, np.ndarray]:
    """Height and width of the clips, of what their crop leaves."""
    height, width = columns.numbers("height"), columns.numbers("width")
    if "crop" not in columns.table.column_names:
        return height, width
    crop = columns.table["crop"].combine_chunks()
    flat, offsets = crop.flatten(), np.asarray(crop.offsets)
    cropped = (np.asarray(pc.is_valid(crop))) & (np.diff(offsets) == 4)
    if not cropped.any():
        return height, width
    starts = (offsets[:-1] - offsets[0])[cropped]
    corners = np.asarray(flat)[starts[:, None] + np.arange(4)].astype(np.float64)
    height, width = height.copy(), width.copy()
    height[cropped], width[cropped] = corners[:, 3] - corners[:, 1], corners[:, 2] - corners[:, 0]
    return height, width


def _duration(columns: Columns) -> np.ndarray:
    return columns.numbers("stop") - columns.numbers("start")


def _side(columns: Columns) -> np.ndarray:
    return np.sqrt(np.multiply(*_size(columns)))


def _aspect(columns: Columns) -> np.ndarray:
    height, width = _size(columns)
    return width / height


DERIVED = {
    "duration": _duration,
    "side": _side,
    "aspect": _aspect,
    "shorter_side": lambda columns: np.minimum(*_size(columns)),
}
"""Facts that rules can name beside the columns: seconds; of what the crop leaves, in pixels, the square root of the
area, width by height, and the shorter side."""


def reasons(rules: Sequence[Rule], failed: np.ndarray, columns: Columns, chosen: slice) -> pa.Array:
    """Return list<REASON> for the clips of a slice, in the order of the rules; `failed` is bool [rules, N]."""
    part = failed[:, chosen].T
    row, which = np.nonzero(part)
    offsets = np.concatenate([[0], np.cumsum(part.sum(axis=1))]).astype(np.int32)
    values = np.full(len(row), np.nan)
    found = np.full(len(row), None, object)
    for index, rule in enumerate(rules):
        own = which == index
        if not own.any():
            continue
        at = row[own] + (chosen.start or 0)
        if rule.sense in ("min", "max"):
            values[own] = columns.numbers(rule.score)[at]
        else:
            found[own] = columns.texts(rule.score).take(pa.array(at)).to_pylist()
    thresholds = np.array([np.nan if rule.threshold is None else rule.threshold for rule in rules])
    names, kinds = (np.array([getattr(rule, key) for rule in rules], object) for key in ("score", "sense"))
    structs = pa.StructArray.from_arrays(
        [
            pa.array(names[which], pa.string()),
            pa.array(kinds[which], pa.string()),
            pa.array(values, from_pandas=True),
            pa.array(thresholds[which] if len(rules) else values, from_pandas=True),
            pa.array(found, pa.string()),
        ],
        fields=list(REASON),
    )
    return pa.ListArray.from_arrays(pa.array(offsets), structs)


def reason_text(reason: Mapping[str, Any]) -> str:
    """Return a reason, a value of type `REASON`, as one sentence."""
    score, sense, value, found = reason["score"], reason["sense"], reason["value"], reason["found"]
    if sense in ("min", "max"):
        if value is None:
            return f"{score} was not measured"
        side = "below" if sense == "min" else "above"
        return f"{score} {value:.4g} is {side} {reason['threshold']:.4g}"
    if sense == "is":
        return f"not {score}"
    if sense == "null":
        return LABELS.get(score, ("", f"{score}: {{}}"))[1].format(found)
    return f"{score} was not measured" if found is None else f"{score} is {found}"
