"""The executor of a Ray cluster: workers are actors. Ray only places them; retries and deadlines are the driver's."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hy_core.errors import HyError, MissingError, UsageError

from hy_data.engine.plan import Plan
from hy_data.engine.worker import Done, Fatal, Group, Job, Message, Ready
from hy_data.recipe import EngineOptions

_STARTS = 3  # attempts to start Ray on this machine


class StageActor:
    """The class of the actors: a group of stages."""

    def __init__(self, plan: Plan, group: int) -> None:
        self.plan, self.number = plan, group

    def load(self) -> Message:
        """Load the models."""
        try:
            self.group = Group(self.plan, self.number)
        except HyError as error:
            return Fatal(error.message, error.hint, isinstance(error, MissingError))
        return Ready()

    def perform(self, job: Job) -> Iterator[Message]:
        """Run the stages on a clip, see `Group.perform`."""
        try:
            yield from self.group.perform(job)
        except MemoryError:
            os._exit(1)
        except HyError as error:
            yield Fatal(error.message, error.hint, isinstance(error, MissingError))


@dataclass(eq=False)
class RayWorker:
    """An actor, and what it was asked last: a reference, or a generator of references."""

    actor: Any
    waiting: Any


class RayExecutor:
    """Workers are actors with the resources of their stages; `address` is a cluster's, else one is started here."""

    def __init__(self, plan: Plan, options: EngineOptions) -> None:
        try:
            import ray
        except ImportError:
            raise MissingError("the executor ray needs Ray", 'pip install "hy-data[ray]"') from None
        self.ray, self.plan = ray, plan
        self._ours = not ray.is_initialized()
        if self._ours:
            self._begin(options)
        there = ray.cluster_resources()
        self.cpus = float(min(there.get("CPU", 1), options.workers or 1e9))
        self.gpus = float(there.get("GPU", 0)) if options.gpus < 0 else float(options.gpus)
        self._kind: Any = ray.remote(max_restarts=0, max_task_retries=0)(StageActor)
        self._workers: dict[Any, RayWorker] = {}
        self._check()

    def _begin(self, options: EngineOptions) -> None:
        about: dict[str, Any] = {"address": options.address or "local"}
        if not options.address and options.workers:
            about["num_cpus"] = options.workers
        for attempt in range(_STARTS):
            try:
                self.ray.init(**about, include_dashboard=False, log_to_driver=False, configure_logging=False)
                return
            except Exception as error:  # a plain Exception where a busy machine is slow to start
                self.ray.shutdown()
                if attempt == _STARTS - 1 or options.address:
                    where = f"the Ray cluster {options.address}" if options.address else "Ray"
                    first = str(error).strip().splitlines()[0][:200]
                    raise HyError(f"{where} can't be reached or started: {first}") from error

    def _check(self) -> None:
        # An actor that asks for more than there is would wait for ever.
        for stage in self.plan.stages:
            if stage.resources.cpus > self.cpus:
                self.close()
                raise UsageError(
                    f"the stage {stage.name} needs {stage.resources.cpus:g} CPUs, there are {self.cpus:g}",
                    "use more workers",
                )

    def start(self, group: int) -> RayWorker:
        stages = [one for one in self.plan.stages if one.group == group]
        gpus = max(one.resources.gpus for one in stages) if self.gpus else 0
        # The driver counts busy cores; an idle worker of each group may stay beside the one that is busy.
        cpus = max(one.resources.cpus for one in stages) / len(self.plan.groups())
        actor = self._kind.options(num_cpus=int(cpus * 1000) / 1000, num_gpus=gpus).remote(self.plan, group)
        worker = RayWorker(actor, actor.load.remote())
        self._workers[worker.waiting] = worker
        return worker

    def send(self, worker: RayWorker, job: Job) -> None:
        worker.waiting = worker.actor.perform.options(num_returns="streaming").remote(job)
        self._workers[worker.waiting] = worker

    def poll(self, seconds: float) -> Sequence[tuple[RayWorker, Message | None]]:
        if not self._workers:
            return []
        ready, _ = self.ray.wait(list(self._workers), num_returns=1, timeout=max(seconds, 0.001))
        heard: list[tuple[RayWorker, Message | None]] = []
        for waiting in ready:
            worker = self._workers[waiting]
            try:
                is_reference = isinstance(waiting, self.ray.ObjectRef)
                message: Message = self.ray.get(waiting if is_reference else next(waiting))  # type: ignore[arg-type]
                if is_reference or isinstance(message, Done):
                    del self._workers[waiting]
                heard.append((worker, message))
            except StopIteration:
                del self._workers[waiting]
            except (self.ray.exceptions.RayError, HyError):
                self.stop(worker)
                heard.append((worker, None))
        return heard

    def stop(self, worker: RayWorker) -> None:
        self._workers.pop(worker.waiting, None)
        self.ray.kill(worker.actor, no_restart=True)

    def close(self) -> None:
        for worker in list(self._workers.values()):
            self.stop(worker)
        if self._ours:
            self.ray.shutdown()
