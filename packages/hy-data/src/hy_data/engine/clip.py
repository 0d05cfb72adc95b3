"""Where a clip stands in a plan: its record, what the stages found, and which stage comes next."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hy_core.data import ClipRecord

from hy_data.engine.outcome import CLIPS, Outcome
from hy_data.engine.plan import Plan, PlannedStage

_CHANGES = ("span", "crop", "captions")


def clip_id(content: str, span: tuple[float, float] | None = None, more: str = "") -> str:
    """Return the id of a clip: 16 hex digits of the SHA-256 of the file's hash, start and stop in microseconds.

    A whole file has neither start nor stop. `more` tells clips of the same span apart.
    """
    ends = [] if span is None else [str(round(one * 1e6)) for one in span]
    text = ":".join([content, *ends, *([more] if more else [])])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass
class Clip:
    """A clip, or a whole file that a stage will split into clips.

    `record` holds what came with the clip and the span, crop and captions as the stages changed them; results of
    stages are in `found`, by the index of the stage. `seconds` is its length, estimated for a file not examined yet.
    `index` is that of the next stage, `dropped` that of the stage where it was filtered or failed first.
    """

    id: str
    content: str
    record: ClipRecord
    seconds: float = 0.0
    found: dict[int, Outcome] = field(default_factory=dict)
    index: int = 0
    dropped: int | None = None
    is_done: bool = False
    children: list[Clip] | None = None

    def next(self, plan: Plan, known: Mapping[str, Outcome]) -> PlannedStage | None:
        """Take the outcomes that are known, by their keys, and return the first stage without one, None at the end."""
        stages = plan.stages
        while not self.is_done and self.index < len(stages):
            stage = stages[self.index]
            if self.dropped is not None:
                if stage.group != stages[self.dropped].group:
                    break
                if any(one in self.found and self.found[one].status == "failed" for one in stage.needs):
                    self.index += 1
                    continue
            outcome = known.get(stage.key(self.record))
            if outcome is None:
                return stage
            self._take(stage, outcome)
        self.is_done = True
        return None

    def visible(self, stage: PlannedStage) -> ClipRecord:
        """Return the record as a stage may see it: with the results of the stages that it needs."""
        record = self.record
        for index in stage.needs:
            if (outcome := self.found.get(index)) is not None:
                plain = {name: one for name, one in outcome.results.items() if name not in _CHANGES}
                record = record.with_results({**plain, **outcome.vectors})
        return record

    def results(self) -> dict[str, Any]:
        """Return all results and vectors, in the order of the stages."""
        merged: dict[str, Any] = dict(self.record.results)
        for index in sorted(self.found):
            merged |= {**self.found[index].results, **self.found[index].vectors}
        return {name: one for name, one in merged.items() if name not in _CHANGES}

    def _take(self, stage: PlannedStage, outcome: Outcome) -> None:
        self.index += 1
        self.found[stage.index] = outcome
        if outcome.status != "ok":
            self.dropped = stage.index if self.dropped is None else self.dropped
            self.is_done = outcome.status == "filtered" or outcome.is_final
        if stage.splits and outcome.status == "ok":
            del self.found[stage.index]
            self.children, self.is_done = self._split(stage, outcome), True
            return
        changes = {name: outcome.results[name] for name in _CHANGES if name in outcome.results}
        if changes:
            self.record = self.record.with_results(changes)
        duration = outcome.results.get("duration")
        if isinstance(duration, int | float) and not isinstance(duration, bool) and duration >= 0:
            self.seconds = float(duration)

    def _split(self, stage: PlannedStage, outcome: Outcome) -> list[Clip]:
        rows: Any = outcome.results[CLIPS]
        children: dict[str, Clip] = {}
        for number, row in enumerate(rows):
            changes = {name: row[name] for name in _CHANGES if name in row}
            record = self.record.with_results(changes) if changes else self.record
            plain = {name: one for name, one in row.items() if name not in (*_CHANGES, "rejected")}
            prefix = f"{number}/"
            vectors = {
                name.removeprefix(prefix): array
                for name, array in outcome.vectors.items()
                if name.startswith(prefix)
            }
            rejected = row.get("rejected")
            reason = rejected.removeprefix(f"{stage.name}: ") if rejected else None
            own = Outcome(
                "filtered" if reason else "ok",
                plain,
                vectors,
                reason,
                seconds=outcome.seconds / max(len(rows), 1),
            )
            crop = str(record.crop) if "crop" in row else ""
            child = Clip(clip_id(self.content, record.span, crop), self.content, record, self.seconds)
            child.found = {**self.found, stage.index: own}
            child.index = self.index
            if record.span is not None:
                child.seconds = record.span[1] - record.span[0]
            if reason:
                child.dropped, child.is_done = stage.index, True
            children.setdefault(child.id, child)
        if not children:
            alone = replace(self, found={**self.found}, children=None, dropped=stage.index, is_done=True)
            alone.found[stage.index] = Outcome("filtered", reason="no clips")
            return [alone]
        return list(children.values())
