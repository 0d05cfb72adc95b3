"""How fast stages are: rates for progress, and deadlines that follow from the usual time of a stage."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from statistics import median
from typing import TYPE_CHECKING, Any

from hy_data.engine.clip import Clip
from hy_data.engine.outcome import Outcome
from hy_data.engine.plan import Plan, PlannedStage
from hy_data.recipe import EngineOptions

if TYPE_CHECKING:
    from hy_data.engine.driver import Driver

DECODE = "decode"
_RECENT = 101  # clips whose times count
_LEAST = 3  # before this many are known, a stage is taken to run in real time


class StagePace:
    """Counts and times of a stage in this run; `media` and `busy` are seconds of video and of work."""

    def __init__(self) -> None:
        self.counts = {"ok": 0, "filtered": 0, "failed": 0}
        self.busy = self.media = 0.0
        self.recent: deque[float] = deque(maxlen=_RECENT)

    def add(self, seconds: float, media: float) -> None:
        """Add a clip's seconds of work and of video."""
        self.busy += seconds
        self.media += media
        self.recent.append(seconds / (1 + media))

    @property
    def factor(self) -> float | None:
        """Seconds of video for a second of one worker; None if it isn't known."""
        return self.media / self.busy if self.busy > 0 and self.media > 0 else None


class Pace:
    """Times of all stages, and how much of the input is done."""

    def __init__(self, plan: Plan, options: EngineOptions) -> None:
        self.options = options
        self.stages = {stage.name: StagePace() for stage in plan.stages}
        self.decode = StagePace()
        self.started = time.monotonic()
        self.clips = {"ok": 0, "filtered": 0, "failed": 0}
        self.inputs = self.files = self.bytes = self.total_bytes = 0
        self.last_failed: tuple[str, str, str] | None = None
        self.observer: Callable[[Driver], Any] = lambda driver: None

    def limit(self, stage: PlannedStage, media: float) -> float:
        """Return the seconds that a stage has for a clip of so many seconds."""
        recent = [*self.stages[stage.name].recent]
        usual = median(recent) if len(recent) >= _LEAST else 1.0
        if stage.on_frames:  # the first of a group also waits for the decoding
            decoding = self.decode.recent
            usual += median(decoding) if len(decoding) >= _LEAST else 1.0
        return max(self.options.min_deadline, self.options.deadline_factor * usual * (1 + media))

    def add(self, stage: PlannedStage, outcome: Outcome, clip: Clip) -> None:
        """Note a stage's outcome."""
        pace = self.stages[stage.name]
        pace.counts[outcome.status] += 1
        if outcome.status != "failed":
            pace.add(outcome.seconds, clip.seconds)
        else:
            self.last_failed = (str(clip.record.path), stage.name, outcome.reason or "")

    def decoded(self, seconds: float, media: float) -> None:
        """Note the decoding of a clip."""
        self.decode.counts["ok"] += 1
        self.decode.add(seconds, media)

    def split(self, clip: Clip) -> None:
        """Note a file that was split into clips."""

    def finish(self, clip: Clip) -> None:
        """Note a clip that is through."""
        status = "ok" if clip.dropped is None else clip.found[clip.dropped].status
        self.clips[status] += 1

    def tick(self, driver: Driver) -> None:
        """Tell the observer, who decides how often it shows something."""
        self.observer(driver)

    def totals(self) -> dict[str, tuple[int, float, float]]:
        """Return clips, seconds of work and seconds of video by stage, and those of decoding."""
        every = {**self.stages, DECODE: self.decode}
        return {
            name: (sum(one.counts.values()), one.busy, one.media)
            for name, one in every.items()
            if one.busy or any(one.counts.values())
        }
