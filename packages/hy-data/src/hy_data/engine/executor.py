"""What the driver asks of an executor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from hy_data.engine.worker import Job, Message

Worker = Any
"""A worker as an executor knows it; hashable."""


class Executor(Protocol):
    """Starts workers of groups, sends them clips, and tells what they say."""

    cpus: float
    gpus: float

    def start(self, group: int) -> Worker:
        """Start a worker; it says `Ready` later."""

    def send(self, worker: Worker, job: Job) -> None:
        """Give a ready worker its next clip."""

    def poll(self, seconds: float) -> Sequence[tuple[Worker, Message | None]]:
        """Wait for messages, at most so long; None is the death of a worker."""

    def stop(self, worker: Worker) -> None:
        """Kill a worker; nothing is heard of it any more."""

    def close(self) -> None:
        """Kill all workers."""
