"""Evaluate the sets of a recipe on columns: which clips each set gets, with its thresholds and the reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from hy_core.data import Score
from hy_core.errors import UsageError
from hy_core.files import read_text

from hy_data.select.rules import Columns, Rule
from hy_data.select.sets import SetSpec, direction
from hy_data.select.thresholds import solve

USABLE = Rule("usable", "null")
"""No stage dropped the clip; the column has the reason of those that were."""
UNIQUE = Rule("duplicate_of", "null")


@dataclass(frozen=True)
class Chosen:
    """A set with what was decided.

    `rules` in the order of the funnel; `failed` bool [rules, N]: which clips each of them drops, also those that
    another one drops; `kept` bool [N]. `pool`: clips that the solved thresholds chose from; `level`: their common
    quantile.
    """

    spec: SetSpec
    rules: tuple[Rule, ...]
    failed: np.ndarray
    kept: np.ndarray
    pool: int
    level: float


def choose(
    specs: Sequence[SetSpec], columns: Columns, scores: Mapping[str, Score], home: Path
) -> list[Chosen]:
    """Decide all sets, each after its parent. `scores` tells the wanted directions; `home` holds files of `only`.

    `UsageError` for a score that isn't there, with the names of those that are.
    """
    chosen: dict[str, Chosen] = {}
    for spec in specs:
        chosen[spec.name] = one = _choose(spec, columns, scores, home)
        columns.extra[f"in {spec.name}"] = one.kept
    return list(chosen.values())


def _choose(spec: SetSpec, columns: Columns, scores: Mapping[str, Score], home: Path) -> Chosen:
    rules = [USABLE, *([UNIQUE] if "duplicate_of" in columns else [])]
    if spec.parent:
        rules.append(Rule(f"in {spec.parent}", "is"))
    for name, wanted in ((spec.only, True), (spec.without, False)):
        if name is not None:
            listed = f"listed in {Path(name).name}"
            columns.extra[listed] = _listed(home / name, columns)
            rules.append(Rule(listed, "is") if wanted else Rule(listed, "any", choices=("false",)))
    if spec.fps is not None and spec.frames_column not in columns.extra:
        columns.extra[spec.frames_column] = np.floor(columns.numbers("duration") * spec.fps + 0.25)
    rules += [rule for rule in spec.rules if _is_there(rule, spec, columns)]
    failed = [~rule.passes(columns) for rule in rules]
    pool = ~np.any(failed, axis=0)
    level = 0.0
    if spec.keep is not None:
        for name in spec.scores:
            _is_there(Rule(name, "min"), spec, columns)
        better = {
            name: direction(spec, name, scores[name].better if name in scores else None)
            for name in spec.scores
        }
        values = {name: columns.numbers(name)[pool] for name in spec.scores}
        solved = solve(values, better, spec.keep)
        level = solved.level
        for name in spec.scores:
            # Without a clip to solve it from, a threshold drops those that weren't measured.
            bound = solved.thresholds.get(name, -np.inf if better[name] == "high" else np.inf)
            rule = Rule(name, "min" if better[name] == "high" else "max", bound, solved=True)
            rules.append(rule)
            failed.append(~rule.passes(columns))
    matrix = np.array(failed)
    return Chosen(spec, tuple(rules), matrix, np.asarray(~matrix.any(axis=0)), int(pool.sum()), level)


def _is_there(rule: Rule, spec: SetSpec, columns: Columns) -> bool:
    """Whether the rule's column is there; `UsageError` if it must be, and for a threshold on what isn't a number."""
    if rule.score not in columns:
        if rule.keep_missing:
            return False
        names = [*columns.table.column_names, *columns.extra]
        close = get_close_matches(rule.score, names, 1)
        raise UsageError(
            f"[sets.{spec.name}]: no stage measured {rule.score}",
            f"did you mean {close[0]}?" if close else "add the stage that does, or take it out of the set",
        )
    if rule.sense in ("min", "max") and not columns.is_number(rule.score):
        raise UsageError(f"[sets.{spec.name}]: {rule.score} is not a number", "use any or none")
    return True


def _listed(path: Path, columns: Columns) -> np.ndarray:
    """Which clips a file lists: ids at the starts of its lines, up to a space or comma."""
    ids = {line.replace(",", " ").split()[0] for line in read_text(path).splitlines() if line.strip()}
    inside: np.ndarray = np.asarray(
        pc.is_in(columns.texts("id"), value_set=pa.array(sorted(ids), pa.string()))
    )
    return inside
