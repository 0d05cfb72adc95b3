"""The driver: queues of clips before each group of stages, deadlines, retries, and what goes into the ledger.

A worker has one clip at a time, so its death or hang names the clip: the clip is tried again after all others, and has
failed at the stage it was in after `tries`. Later groups are served first and a group pauses while the next one's queue
is full, so memory doesn't grow with the input. Nothing in the ledger depends on the order in which workers answer.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from hy_core.errors import HyError, MissingError

from hy_data.engine.clip import Clip
from hy_data.engine.executor import Executor, Worker
from hy_data.engine.ledger import Ledger
from hy_data.engine.outcome import Outcome
from hy_data.engine.pace import Pace
from hy_data.engine.plan import Plan, PlannedStage
from hy_data.engine.worker import Decoded, Done, Fatal, Found, Job, Message, Ready
from hy_data.recipe import EngineOptions

DIED, HUNG = "its worker died", "took too long and was stopped"
_POLL = 0.2  # seconds
_MOST_STARTS = 3  # workers of a group that may die while they load
_MOST_DEATHS = 8  # clips of a group that may kill their workers before one clip succeeds


@dataclass(eq=False)
class Slot:
    """A worker of a group, with the clip that it has; `deadline` on the monotonic clock."""

    worker: Worker
    group: int
    deadline: float
    is_ready: bool = False
    clip: Clip | None = None
    known: dict[str, Outcome] | None = None
    since: float = 0.0
    served: int = 0


class Driver:
    """Runs a plan on clips. `pace` knows rates; it may be read for progress at any time."""

    def __init__(
        self, plan: Plan, ledger: Ledger, make_executor: Callable[[], Executor], options: EngineOptions
    ) -> None:
        self.plan, self.ledger, self.options = plan, ledger, options
        self._make_executor = make_executor
        self.groups = plan.groups()
        self.pace = Pace(plan, options)
        self.queues: list[deque[tuple[Clip, dict[str, Outcome]]]] = [deque() for _ in self.groups]
        self.again: list[deque[tuple[Clip, dict[str, Outcome]]]] = [deque() for _ in self.groups]
        self._slots: dict[Worker, Slot] = {}
        self._tries: dict[tuple[str, int], int] = {}
        self._starts = [0] * len(self.groups)
        self._deaths: list[set[str] | None] = [set() for _ in self.groups]  # None: a clip has succeeded

    def run(self, source: Iterator[Clip | None]) -> None:
        """Run all clips of a source to their end; it yields None while the next isn't there yet.

        `HyError` for what ends a run: a stage that can't start, a missing package, a full disk.
        """
        is_exhausted = False
        try:
            while True:
                waits = False
                while not is_exhausted and not waits and len(self.queues[0]) < self.options.queue:
                    try:
                        clip = next(source)
                    except StopIteration:
                        is_exhausted = True
                        break
                    if clip is None:
                        waits = True
                    else:
                        self._advance(clip, self.ledger.outcomes(clip.id))
                self._dispatch(is_exhausted)
                if is_exhausted and not self._is_busy():
                    break
                if self._slots:
                    for worker, message in self.executor.poll(0.02 if waits else _POLL):
                        self._hear(worker, message)
                elif waits:
                    time.sleep(0.02)
                self._check_deadlines()
                self.ledger.tick()
                self.pace.tick(self)
        finally:
            self.ledger.commit()

    @cached_property
    def executor(self) -> Executor:
        """The executor, which starts when there is work: a run that resumes at its end needs none."""
        return self._make_executor()

    def close(self) -> None:
        """Kill all workers."""
        if "executor" in self.__dict__:
            self.executor.close()

    def in_flight(self, group: int) -> int:
        """Return the number of clips that workers of a group have now."""
        return sum(slot.clip is not None for slot in self._slots.values() if slot.group == group)

    def _is_busy(self) -> bool:
        return any(self.queues) or any(self.again) or any(slot.clip for slot in self._slots.values())

    def _advance(self, clip: Clip, known: dict[str, Outcome]) -> None:
        """Put a clip before the group that it needs next, or its clips, or count it as done."""
        todo = [(clip, known)]
        while todo:
            clip, known = todo.pop()
            stage = clip.next(self.plan, known)
            if stage is not None:
                is_retry = (clip.id, stage.index) in self._tries
                (self.again if is_retry else self.queues)[stage.group].append((clip, known))
            elif clip.children is None:
                self.pace.finish(clip)
            else:
                self.pace.split(clip)
                todo += [(one, self.ledger.outcomes(one.id)) for one in reversed(clip.children)]

    # giving work

    def _dispatch(self, is_exhausted: bool) -> None:
        for group in reversed(range(len(self.groups))):
            while self._may_serve(group, is_exhausted):
                if not self._serve(group, is_exhausted):
                    break

    def _may_serve(self, group: int, is_exhausted: bool) -> bool:
        if group + 1 < len(self.groups) and len(self.queues[group + 1]) >= self.options.queue:
            return False
        return self._has_work(group, is_exhausted)

    def _has_work(self, group: int, is_exhausted: bool) -> bool:
        if self.queues[group]:
            return True
        # Those that killed a worker come after all others.
        return bool(self.again[group]) and is_exhausted and not any(self.queues[: group + 1])

    def _serve(self, group: int, is_exhausted: bool) -> bool:
        """Give the group's next clip to a worker, or start one; False if there are no cores or workers left."""
        cpus, gpus = self._cost(group)
        busy = [slot for slot in self._slots.values() if slot.clip is not None or not slot.is_ready]
        used = [sum(one) for one in zip(*(self._cost(slot.group) for slot in busy), strict=True)] or [
            0.0,
            0.0,
        ]
        if busy and (
            used[0] + cpus > self.executor.cpus + 1e-6 or used[1] + gpus > self.executor.gpus + 1e-6
        ):
            return False
        idle = [slot for slot in self._slots.values() if slot.is_ready and slot.clip is None]
        for slot in idle:
            if slot.group == group:
                self._give(slot, *(self.queues[group] or self.again[group]).popleft())
                return True
        starting = sum(not slot.is_ready for slot in self._slots.values() if slot.group == group)
        if starting >= len(self.queues[group]) + len(self.again[group]):
            return False
        if len(self._slots) >= self.executor.cpus + len(self.groups):
            unused = [slot for slot in idle if not self._has_work(slot.group, is_exhausted)]
            if not unused:
                return False
            self._end(unused[0])
        worker = self.executor.start(group)
        self._slots[worker] = Slot(worker, group, time.monotonic() + self.options.start_seconds)
        return True

    def _cost(self, group: int) -> tuple[float, float]:
        members = self.groups[group]
        cpus = max(stage.resources.cpus for stage in members)
        gpus = max(stage.resources.gpus for stage in members)
        return min(cpus, self.executor.cpus), min(gpus, self.executor.gpus)

    def _give(self, slot: Slot, clip: Clip, known: dict[str, Outcome]) -> None:
        slot.clip, slot.known, slot.since = clip, known, time.monotonic()
        slot.served += 1
        self._set_deadline(slot)
        self.executor.send(slot.worker, Job(clip, known))

    def _set_deadline(self, slot: Slot) -> None:
        stage = self._stage_of(slot)
        if stage is not None and slot.clip is not None:
            slot.deadline = time.monotonic() + self.pace.limit(stage, slot.clip.seconds)

    def _stage_of(self, slot: Slot) -> PlannedStage | None:
        """The stage that a busy worker is in: the first whose outcome it hasn't told."""
        if slot.clip is None:
            return None
        stage = slot.clip.next(self.plan, slot.known or {})
        return stage if stage is not None and stage.group == slot.group else None

    # hearing

    def _hear(self, worker: Worker, message: Message | None) -> None:
        slot = self._slots.get(worker)
        if slot is None:
            return
        match message:
            case Ready():
                slot.is_ready = True
                self._starts[slot.group] = 0
            case Decoded():
                if slot.clip is not None:
                    self.pace.decoded(message.seconds, slot.clip.seconds)
                    self._set_deadline(slot)
            case Found():
                self._found(slot, message)
            case Done():
                self._done(slot, message)
            case Fatal():
                self._stop_run(slot, message)
            case None:
                self._died(slot, DIED)

    def _found(self, slot: Slot, message: Found) -> None:
        if slot.clip is None or slot.known is None:
            return
        stage = self.plan.stages[message.index]
        outcome = message.outcome
        if slot.clip.found.get(stage.index) is None:
            tries = self._tries.get((slot.clip.id, stage.index), 0)
            self._deaths[slot.group] = None
            self.pace.add(stage, outcome, slot.clip)
            # A clip that failed by itself after a worker had died would otherwise count as tried once.
            self._store(slot.clip, slot.known, stage, message.key, outcome, 1 + tries)
        self._set_deadline(slot)

    def _store(
        self,
        clip: Clip,
        known: dict[str, Outcome],
        stage: PlannedStage,
        key: str,
        outcome: Outcome,
        tries: int,
    ) -> None:
        if tries != 1 and outcome.status == "failed":
            outcome = Outcome(
                outcome.status, outcome.results, outcome.vectors, outcome.reason, outcome.is_final, tries
            )
        known[key] = outcome
        self.ledger.add(clip.id, stage.name, key, outcome)

    def _done(self, slot: Slot, message: Done) -> None:
        clip, known = slot.clip, slot.known
        slot.clip = slot.known = None
        too_large = message.memory > self.options.memory_gb * 2**30
        if slot.served >= self.options.clips_per_worker or too_large:
            self._end(slot)
        if clip is not None and known is not None:
            self._advance(clip, known)

    def _end(self, slot: Slot) -> None:
        self._slots.pop(slot.worker, None)
        self.executor.stop(slot.worker)

    def _check_deadlines(self) -> None:
        now = time.monotonic()
        for slot in list(self._slots.values()):
            if (slot.clip is not None or not slot.is_ready) and now > slot.deadline:
                self.executor.stop(slot.worker)
                self._died(slot, HUNG)

    def _died(self, slot: Slot, how: str) -> None:
        """A worker has ended or was killed: note its clip's try, and store a failure when it was the last one."""
        self._slots.pop(slot.worker, None)
        clip, known = slot.clip, slot.known
        names = ", ".join(stage.name for stage in self.groups[slot.group])
        if not slot.is_ready:
            self._starts[slot.group] += 1
            if self._starts[slot.group] >= _MOST_STARTS:
                raise HyError(
                    f"{names}: {_MOST_STARTS} workers in a row ended while they loaded ({how})",
                    "run again with HY_DEBUG=1 to see their errors",
                )
        if clip is None or known is None:
            return
        stage = self._stage_of(slot)
        if stage is not None:
            self._count_death(slot.group, clip, names)
            tries = self._tries[clip.id, stage.index] = self._tries.get((clip.id, stage.index), 0) + 1
            if tries >= self.options.tries:
                del self._tries[clip.id, stage.index]
                outcome = Outcome("failed", reason=how)
                self.pace.add(stage, outcome, clip)
                self._store(clip, known, stage, stage.key(clip.record), outcome, tries)
        self._advance(clip, known)

    def _count_death(self, group: int, clip: Clip, names: str) -> None:
        dead = self._deaths[group]
        if dead is not None:
            dead.add(clip.id)
            if len(dead) >= _MOST_DEATHS:
                raise HyError(
                    f"{names}: its workers died or hung on {len(dead)} clips and finished none",
                    "run again with HY_DEBUG=1 to see their errors; see engine.memory_gb and engine.min_deadline",
                )

    def _stop_run(self, slot: Slot, message: Fatal) -> None:
        names = ", ".join(stage.name for stage in self.groups[slot.group])
        kind = MissingError if message.missing else HyError
        raise kind(f"{names}: {message.message}", message.hint)
