"""A worker: runs the stages of one group on one clip at a time, and tells its driver each outcome at once.

It gets clips and sends messages over a socket: Ready when its models are loaded, then for each clip Decoded, a Found
for each stage that ran, and Done. `main` is the process of the local executor.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from hy_core.data import ClipRecord, Stage
from hy_core.errors import HyError, MissingError, is_out_of_memory

from hy_data.engine.clip import Clip
from hy_data.engine.outcome import Outcome, children_of, split_results
from hy_data.engine.plan import Plan, PlannedStage


@dataclass(frozen=True)
class Ready:
    """The models are loaded."""


@dataclass(frozen=True)
class Decoded:
    """The clip's frames are decoded."""

    seconds: float


@dataclass(frozen=True)
class Found:
    """A stage's outcome for the clip."""

    index: int
    key: str
    outcome: Outcome


@dataclass(frozen=True)
class Done:
    """The clip is through this group; `memory` is the worker's resident memory in bytes."""

    memory: int


@dataclass(frozen=True)
class Fatal:
    """Something that is no fault of the clip, such as a missing package; it ends the run."""

    message: str
    hint: str | None
    missing: bool


Message = Ready | Decoded | Found | Done | Fatal


@dataclass(frozen=True)
class Job:
    """A clip and the outcomes that are known of it, by key."""

    clip: Clip
    known: dict[str, Outcome]


class Group:
    """The stages of one group, made and set up in this process."""

    def __init__(self, plan: Plan, group: int) -> None:
        from hy_core.plugins import Plugins

        plugins = Plugins()
        self.plan = plan
        self.stages: dict[int, Stage] = {}
        for planned in plan.stages:
            if planned.group == group:
                plugins.load(*() if planned.owner.startswith("(") else (planned.owner,))
                self.stages[planned.index] = plugins.stages()[planned.name](**planned.values)
        for stage in self.stages.values():
            stage.setup()
        _few_threads()

    def perform(self, job: Job) -> Iterator[Message]:
        """Run the stages that have no known outcome; out-of-memory errors and `MissingError`s pass."""
        clip, known, frames = job.clip, dict(job.known), None
        while (planned := clip.next(self.plan, known)) is not None and planned.index in self.stages:
            record, key = clip.visible(planned), planned.key(clip.record)
            outcome = None
            if planned.on_frames:
                if frames is None or not frames.is_of(record):
                    frames, outcome, seconds = self._decode(record, planned)
                    yield Decoded(seconds)
            start = time.perf_counter()
            if outcome is None:
                outcome = self._outcome(planned, record, frames)
            known[key] = replace(outcome, seconds=time.perf_counter() - start)
            yield Found(planned.index, key, known[key])
        yield Done(resident_memory())

    def _decode(self, record: ClipRecord, first: PlannedStage) -> tuple[Any, Outcome | None, float]:
        """Decode the frames for a stage and those after it in the group."""
        from hy_data.frames import ClipFrames

        start = time.perf_counter()
        later: list[Any] = [stage for index, stage in self.stages.items() if index >= first.index]
        views = [view for stage in later for view in stage.views()]
        frames = ClipFrames(record, views)
        outcome = None
        try:
            if views:
                frames.times(views[0])
        except Exception as error:
            outcome = replace(_failed(error, record), is_final=True)
        return frames, outcome, time.perf_counter() - start

    def _outcome(self, planned: PlannedStage, record: ClipRecord, frames: Any) -> Outcome:
        stage: Any = self.stages[planned.index]
        try:
            if planned.splits:
                return children_of(record, list(stage.run(record)))
            results, reason = stage.measure(record, frames) if planned.on_frames else stage.found(record)
            plain, vectors = split_results(results)
            record.with_results(plain)  # a span, crop or caption that is malformed
            return Outcome("filtered" if reason else "ok", plain, vectors, reason or None)
        except Exception as error:
            return _failed(error, record)


def _failed(error: Exception, record: ClipRecord) -> Outcome:
    if is_out_of_memory(error) or (isinstance(error, MissingError) and record.file.exists()):
        raise error
    if isinstance(error, HyError):
        return Outcome("failed", reason=error.message)
    lines = str(error).strip().splitlines()
    return Outcome("failed", reason=f"unexpected {type(error).__name__}: {lines[0][:200] if lines else ''}")


def _few_threads() -> None:
    """Keep libraries that were imported by the stages to the cores of this worker."""
    count = int(os.environ.get("OMP_NUM_THREADS", "1") or 1)
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(count)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)


def resident_memory() -> int:
    """Return the bytes of memory that this process holds; 0 where the system doesn't tell."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def limit_memory(most: int) -> None:
    """Bound this process: it may map so many bytes more than now."""
    try:
        import resource

        with open("/proc/self/statm") as file:
            mapped = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        limit = mapped + most
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard < 0 else min(limit, hard), hard))
    except (ImportError, OSError, ValueError):
        return


def main(descriptor: int) -> None:
    """Serve one driver over a socket until it closes."""
    from multiprocessing.connection import Connection

    channel: Any = Connection(descriptor)
    plan, group, memory = channel.recv()
    try:
        served = Group(plan, group)
        limit_memory(memory)
        channel.send(Ready())
        while True:
            for message in served.perform(channel.recv()):
                channel.send(message)
    except HyError as error:
        channel.send(Fatal(error.message, error.hint, isinstance(error, MissingError)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
