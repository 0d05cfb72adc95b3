"""Rows of the table of scores, from the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hy_data.engine.clip import Clip, clip_id
from hy_data.engine.ledger import Ledger
from hy_data.engine.plan import Plan
from hy_data.sources.intake import SOURCE, make_clip

_RESERVED = frozenset("id content path start stop crop captions status stage reason tries".split())


def walk(plan: Plan, ledger: Ledger, downloads: Path) -> Iterator[Clip | dict[str, Any]]:
    """Yield every clip of the run's inputs as the ledger knows it, and a row for each input that gives no clip."""
    for _, entry, content, problem in ledger.inputs():
        if problem is not None:
            where = entry.get("url") or entry["path"]
            yield {
                "id": clip_id(content or "", None, where),
                "content": content and content[:16],
                "path": where,
                "captions": [],
                "status": "filtered" if content else "failed",
                "stage": SOURCE,
                "reason": problem,
                "tries": 1,
            }
        elif content is not None:
            todo = [make_clip(entry, content, downloads)]
            while todo:
                clip = todo.pop()
                clip.next(plan, ledger.outcomes(clip.id))
                if clip.children is None:
                    yield clip
                else:
                    todo += reversed(clip.children)


def score_rows(plan: Plan, ledger: Ledger, downloads: Path) -> Iterator[dict[str, Any]]:
    """Yield a row for each clip that is through and each input that gives none; a clip that comes twice comes once."""
    seen: set[int] = set()
    for one in walk(plan, ledger, downloads):
        row = one if isinstance(one, dict) else row_of(one, plan)
        number = int(row["id"], 16)
        if row["status"] != "pending" and number not in seen:
            seen.add(number)
            yield row


def row_of(clip: Clip, plan: Plan) -> dict[str, Any]:
    """Return a clip's row; its status is "pending" while stages are missing."""
    results = {name: one for name, one in clip.results().items() if name not in _RESERVED}
    duration = results.get("duration")
    # A picture file has no end.
    start, stop = clip.record.span or (
        0.0,
        float(duration) if isinstance(duration, int | float) and duration else None,
    )
    at = clip.dropped
    if at is not None and at >= plan.scoring:  # a finishing stage: the scores are good
        results["finish_failed"] = f"{plan.stages[at].name}: {clip.found[at].reason}"
        at = None
    dropped = None if at is None else clip.found[at]
    is_scored = clip.is_done or clip.index >= plan.scoring
    status = "pending" if not is_scored else "ok" if dropped is None else dropped.status
    return {
        **results,
        "id": clip.id,
        "content": clip.content[:16],
        "path": clip.record.path,
        "start": start,
        "stop": stop,
        "crop": list(clip.record.crop) if clip.record.crop else None,
        "captions": list(clip.record.captions),
        "status": status,
        "stage": None if at is None else plan.stages[at].name,
        "reason": None if dropped is None else dropped.reason,
        "tries": dropped.tries if dropped else 1,
    }
