"""The local executor: workers are processes of this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from hy_data.engine.plan import Plan
from hy_data.engine.worker import Job, Message
from hy_data.recipe import EngineOptions

_SERVE = "import sys; from hy_data.engine.lifeline import serve; serve(*map(int, sys.argv[1:]))"


@dataclass(eq=False)
class LocalWorker:
    """A process and the socket to it."""

    process: subprocess.Popen[bytes]
    channel: Any = field(repr=False)
    gpu: str | None = None


class LocalExecutor:
    """Workers are spawned processes that die with this one."""

    def __init__(self, plan: Plan, options: EngineOptions) -> None:
        self.plan, self.options = plan, options
        self.cpus = float(options.workers or cores())
        self._free = gpu_names()[: options.gpus if options.gpus >= 0 else None]
        self.gpus = float(len(self._free))
        self._workers: dict[Any, LocalWorker] = {}

    def start(self, group: int) -> LocalWorker:
        ours, theirs = socket.socketpair()
        stages = [one for one in self.plan.stages if one.group == group]
        threads = str(max(1, int(max(one.resources.cpus for one in stages))))
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        environment = {**os.environ, **dict.fromkeys(names, threads)}
        gpu = None
        if any(one.resources.gpus for one in stages) and self._free:
            gpu = self._free[0]
            self._free = [*self._free[1:], gpu]  # in turn; parts of a GPU are shared
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        process = subprocess.Popen(
            # -P: no module is imported from the current folder, which may hold anything.
            [sys.executable, "-P", "-c", _SERVE, str(os.getpid()), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=None if os.environ.get("HY_DEBUG", "") not in ("", "0") else subprocess.DEVNULL,
            env=environment,
        )
        theirs.close()
        worker = LocalWorker(process, Connection(ours.detach()), gpu)
        self._workers[worker.channel] = worker
        memory = int(self.options.memory_gb * 2**30)
        with suppress(OSError):
            worker.channel.send((self.plan, group, 2 * memory))
        return worker

    def send(self, worker: LocalWorker, job: Job) -> None:
        with suppress(OSError):  # its death is heard by poll
            worker.channel.send(job)

    def poll(self, seconds: float) -> Sequence[tuple[LocalWorker, Message | None]]:
        heard: list[tuple[LocalWorker, Message | None]] = []
        for channel in wait(list(self._workers), seconds) if self._workers else ():
            worker = self._workers[channel]
            try:
                heard.append((worker, worker.channel.recv()))
            except (EOFError, OSError):
                self.stop(worker)
                heard.append((worker, None))
        return heard

    def stop(self, worker: LocalWorker) -> None:
        self._workers.pop(worker.channel, None)
        worker.process.kill()
        worker.process.wait()
        worker.channel.close()

    def close(self) -> None:
        for worker in self._workers.values():
            worker.process.kill()
        for worker in list(self._workers.values()):
            self.stop(worker)


def cores() -> int:
    """Return the cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def gpu_names() -> list[str]:
    """Return the names of this machine's GPUs as CUDA_VISIBLE_DEVICES takes them."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in visible.split(",") if name.strip() not in ("", "-1")]
    try:
        count = sum(name.removeprefix("nvidia").isdigit() for name in os.listdir("/dev"))
    except OSError:
        count = 0
    return [str(number) for number in range(count)]
