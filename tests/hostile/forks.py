"""A process that has everything imported and forks a child for each case: a case takes milliseconds, not seconds.

It reads cases as JSON lines on stdin and answers each with one JSON line. A child runs in a session of its own, in the
case's folder, with its output in files; it is watched for time and memory and killed when it exceeds them. Memory is
what a child has over the parent, so the libraries' own size doesn't count.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

#: A folder of files that no test writes: more than this on the disk is a bomb.
FILE_BYTES = 1 << 30
_POLL = 0.02


@dataclass
class Case:
    """One command line (`argv`, without "hy") or one call ("module:function" with arguments) in a folder.

    `kill` is a signal and the seconds after which it is sent. `size` are the bytes of the inputs.
    """

    name: str
    folder: str
    argv: list[str] | None = None
    call: str | None = None
    arguments: list[Any] = field(default_factory=list)
    seconds: float = 60.0
    size: int = 0
    kill: tuple[int, float] | None = None


@dataclass(frozen=True)
class Outcome:
    """How a case ended: exit code (negative: the signal that ended it), output, CPU seconds, bytes over the parent."""

    code: int
    out: str
    err: str
    cpu: float
    peak: int
    timed_out: bool


class Forks:
    """The process, from the test's side."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment
        self.process: subprocess.Popen[str] | None = None

    def run(self, case: Case) -> Outcome:
        """Run one case to its end; the first starts the process."""
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, str(Path(__file__))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | self.environment,
                text=True,
            )
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(asdict(case)) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"the process that forks died at {case}"
        return Outcome(**json.loads(line))

    def close(self) -> None:
        """End the process."""
        if self.process is None:
            return
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


def serve() -> None:
    """Fork a child for each line of stdin until it ends."""
    for name in (
        *(
            "torch",
            "numpy",
            "av",
            "PIL.Image",
            "PIL.PngImagePlugin",
            "PIL.GifImagePlugin",
            "safetensors.torch",
        ),
        *("transformers", "transformers.models.llama", "transformers.models.clip", "tokenizers"),
        *("hy_core.cli", "hy_core.cli.generate", "hy_core.pipeline", "hy_core.models", "hy_core.weights"),
        *("hy_core.text", "hy_core.media", "hy_core.provenance"),
    ):
        importlib.import_module(name)
    from transformers import AutoModel, CLIPTextModel, LlamaModel  # noqa: F401 - they are imported lazily

    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        case = json.loads(line)
        child = os.fork()
        if not child:
            _child(case)
        answers.write(json.dumps(_watch(case, child)) + "\n")
        answers.flush()


def _child(case: dict[str, Any]) -> None:
    code = 70
    try:
        os.setsid()
        os.chdir(case["folder"])
        for number, name in ((1, ".stdout"), (2, ".stderr")):
            opened = os.open(Path(case["folder"]) / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(opened, number)
            os.close(opened)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        code = _command(case["argv"]) if case["argv"] is not None else _call(case)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
        with suppress(Exception):
            sys.stderr.flush()
        code = 70
    finally:
        os._exit(code & 255)


def _command(argv: list[str]) -> int:
    from hy_core.cli import main

    sys.argv = ["hy", *argv]
    try:
        main(argv)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0


def _call(case: dict[str, Any]) -> int:
    from hy_core.errors import HyError

    module, _, name = case["call"].partition(":")
    try:
        getattr(importlib.import_module(module), name)(*case["arguments"])
    except HyError as error:
        print(f"Error: {error.message}", file=sys.stderr)
        return error.exit_code
    return 0


def _watch(case: dict[str, Any], child: int) -> dict[str, Any]:
    """Wait for a child, kill it where it takes too long or too much, and tell how it ended."""
    start = time.monotonic()
    resident, private, peak, timed_out = (
        _memory(os.getpid(), "VmRSS"),
        _memory(os.getpid(), "RssAnon"),
        0,
        False,
    )
    signalled = False
    while True:
        ended, status, usage = os.wait4(child, os.WNOHANG)
        if ended:
            break
        passed = time.monotonic() - start
        peak = max(peak, _memory(child, "RssAnon") - private)
        if case["kill"] and not signalled and passed >= case["kill"][1]:
            signalled = True
            with suppress(ProcessLookupError):
                os.kill(child, case["kill"][0])
        if passed > case["seconds"] or peak > 4 * case["size"] + (1 << 30):
            timed_out = passed > case["seconds"]
            with suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
        time.sleep(_POLL)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)  # what it may have started
    peak = max(peak, usage.ru_maxrss * 1024 - resident)
    folder = Path(case["folder"])
    outcome = Outcome(
        code=os.waitstatus_to_exitcode(status),
        out=_text(folder / ".stdout"),
        err=_text(folder / ".stderr"),
        cpu=usage.ru_utime + usage.ru_stime,
        peak=peak,
        timed_out=timed_out,
    )
    return asdict(outcome)


def _memory(process: int, what: str) -> int:
    """A line of /proc/PID/status in bytes; 0 for a process that has ended."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith(f"{what}:"):
                return int(line.split()[1]) * 1024
    return 0


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_bytes()[:200_000].decode(errors="replace")
    return ""


if __name__ == "__main__":
    serve()
