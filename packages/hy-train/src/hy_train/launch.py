"""Several processes on one machine: start them, wait for all, and end all when one dies."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hy_core.errors import HyError, UsageError

from hy_train.checkpoints import PARENT
from hy_train.recipe import Recipe

_GRACE = 30.0  # seconds that the others get to save when one process has died
_LOST = ("gloo", "nccl", "connection closed", "connection reset", "broken pipe", "timed out", "socket")


def is_started(environment: dict[str, str] | Any = os.environ) -> bool:
    """Whether this process is one of several that a launcher (`hy train`, torchrun) started."""
    return "LOCAL_RANK" in environment


def check_world(recipe: Recipe, environment: dict[str, str] | Any = os.environ) -> None:
    """Raise `UsageError` where a launcher started another number of processes than the recipe says.

    They would train copies of one another and write the same files.
    """
    if not is_started(environment):
        return
    started, wanted = int(environment.get("WORLD_SIZE", "1")), recipe.devices * recipe.nodes
    if started != wanted:
        raise UsageError(
            f"devices = {recipe.devices} and nodes = {recipe.nodes}, but {started} processes were started",
            f"--set devices={max(started // recipe.nodes, 1)}, or start hy train without torchrun",
        )


def launch(count: int) -> int:
    """Run this command in `count` processes, and return the exit code when all have ended.

    `HyError`, in one line, if one dies; the others end after the step in hand, or are ended.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "NODE_RANK": "0",
        "WORLD_SIZE": str(count),
        PARENT: str(os.getpid()),
    }
    ranks = [
        subprocess.Popen(_command(), env={**os.environ, **common, "LOCAL_RANK": str(rank)})
        for rank in range(count)
    ]
    with _passed_on(ranks):
        while all(one.poll() is None for one in ranks):
            time.sleep(0.1)
        while any(one.poll() is None for one in ranks) and all(one.returncode in (None, 0) for one in ranks):
            time.sleep(0.1)
    codes = [one.returncode for one in ranks]
    if any(code is None for code in codes):
        _end(ranks)
    if (
        dead := next((rank for rank, code in enumerate(codes) if code not in (None, 0, 130)), None)
    ) is not None:
        code = codes[dead] or 0
        how = signal.Signals(-code).name if code < 0 else f"code {code}"
        raise HyError(
            f"process {dead} of {count} ended with {how}", "the same command resumes at the last checkpoint"
        )
    return max((one.returncode or 0 for one in ranks), default=0)


@contextmanager
def lost_process_in_one_line(world: int) -> Iterator[None]:
    """Turn the library's error about a process that is gone into one line."""
    try:
        yield
    except RuntimeError as error:
        if world == 1 or not any(word in str(error).lower() for word in _LOST):
            raise
        raise HyError(
            "another process of this run is gone",
            "its error is above; the same command resumes at the last checkpoint",
        ) from None


@contextmanager
def _passed_on(ranks: list[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Pass SIGTERM on to the processes; Ctrl-C reaches them by itself."""

    def forward(number: int, frame: Any) -> None:
        for one in ranks:
            if one.poll() is None:
                one.send_signal(signal.SIGTERM)

    before: dict[signal.Signals, Any] = {}
    handlers: dict[signal.Signals, Callable[[int, Any], None]] = {
        signal.SIGTERM: forward,
        signal.SIGINT: lambda number, frame: None,
    }
    for number, handler in handlers.items():
        before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _end(ranks: list[subprocess.Popen[bytes]]) -> None:
    limit = time.monotonic() + _GRACE
    for one in ranks:
        if one.poll() is None:
            one.terminate()
    while any(one.poll() is None for one in ranks) and time.monotonic() < limit:
        time.sleep(0.1)
    for one in ranks:
        if one.poll() is None:
            one.kill()
            one.wait()


def _command() -> list[str]:
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is None:
        return [sys.executable, os.path.abspath(sys.argv[0]), *sys.argv[1:]]
    return [sys.executable, "-m", spec.name.removesuffix(".__main__"), *sys.argv[1:]]
