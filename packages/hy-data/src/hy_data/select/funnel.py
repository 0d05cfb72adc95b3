"""What a set dropped, rule by rule: the numbers that the report shows and `sets/NAME.json` records."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hy_data.select.choose import USABLE, Chosen


def summary(chosen: Chosen, table: pa.Table) -> dict[str, Any]:
    """Return a set as JSON: its size, thresholds, and the funnel.

    A step of the funnel has `dropped`, the clips that its rule is the first to drop; `left` after it; and `alone`, the
    clips that it drops whatever other rules say. The rule `usable` has its clips by stage in `stages`.
    """
    spec, failed = chosen.spec, chosen.failed
    first = np.where(chosen.kept, len(failed), failed.argmax(axis=0))
    dropped = np.bincount(first, minlength=len(failed) + 1)[: len(failed)]
    left = len(chosen.kept) - np.cumsum(dropped)
    steps = []
    for index, rule in enumerate(chosen.rules):
        step: dict[str, Any] = {
            "rule": rule.describe() if _finite(rule.threshold) else f"{rule.score} was measured",
            "score": rule.score,
            "sense": rule.sense,
            "threshold": rule.threshold if _finite(rule.threshold) else None,
            "solved": rule.solved,
            "dropped": int(dropped[index]),
            "left": int(left[index]),
            "alone": int(failed[index].sum()),
        }
        if rule is USABLE:
            step["stages"] = _by_stage(table)
        steps.append(step)
    return {
        "name": spec.name,
        "kind": spec.kind,
        "height": spec.height,
        "width": spec.width,
        "frames": spec.frames,
        "fps": spec.fps,
        "pictures": spec.pictures if spec.kind == "image" else None,
        "from": spec.parent,
        "keep": spec.keep,
        "level": chosen.level,
        "clips": len(chosen.kept),
        "pool": chosen.pool,
        "kept": int(chosen.kept.sum()),
        "limits": _limits(chosen),
        "funnel": steps,
    }


def _limits(chosen: Chosen) -> dict[str, dict[str, float]]:
    """Solved thresholds as a recipe's `limits`, to use the same values for other clips."""
    return {
        rule.score: {rule.sense: rule.threshold}
        for rule in chosen.rules
        if rule.solved and rule.threshold is not None and _finite(rule.threshold)
    }


def _by_stage(table: pa.Table) -> list[dict[str, Any]]:
    dropped = table.filter(pc.not_equal(table["status"], "ok")).select(["stage", "status"])
    counts = dropped.group_by(["stage", "status"]).aggregate([([], "count_all")]).to_pylist()
    rows = [
        {"stage": one["stage"] or "", "status": one["status"], "clips": one["count_all"]} for one in counts
    ]
    return sorted(rows, key=lambda one: (-one["clips"], one["stage"], one["status"]))


def _finite(value: float | None) -> bool:
    return value is None or math.isfinite(value)
