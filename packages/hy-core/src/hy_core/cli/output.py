"""Messages of the command line: results on stdout, all else on stderr; progress as a bar, JSON lines or nothing."""

from __future__ import annotations

import json
import os
import sys
import time
from difflib import get_close_matches
from typing import Any

import click

from hy_core.errors import HyError, MemoryLimitError, UsageError, is_out_of_memory
from hy_core.shell import visible

DOING = {"load": "loading", "encode": "encoding", "decode": "decoding", "finish": "finishing"}
MODES = ("auto", "bar", "json", "off")


def clean(text: str) -> str:
    """Return text without the characters that move the cursor or reorder a line; line ends stay."""
    return "".join(char for char in text if char == "\n" or visible(char))


def colored(text: str, color: str) -> str:
    """Return `text` in colour if stderr is a terminal and NO_COLOR is unset."""
    fancy = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    return click.style(text, fg=color) if fancy else text


def note(text: str) -> None:
    """Print a line on stderr."""
    click.echo(clean(text), err=True)


def warn(text: str) -> None:
    """Print a warning on stderr."""
    click.echo(f"{colored('Warning:', 'yellow')} {clean(text)}", err=True)


def report(error: BaseException) -> int:
    """Print an error as one line and a hint, and return the exit code."""
    problem = understood(error)
    if isinstance(problem, HyError):
        message, hint, code = str(problem), problem.hint, problem.exit_code
    elif isinstance(problem, click.NoSuchOption):
        message, code = f"no such option {problem.option_name}", problem.exit_code
        near = get_close_matches(problem.option_name, problem.possibilities or (), 1, 0)
        hint = f"did you mean {near[0]}?" if near else None
    elif isinstance(problem, click.ClickException):
        message, _, hint = problem.format_message().partition("\nHint: ")
        code = problem.exit_code
    else:
        text = str(problem).strip().splitlines()
        message = f"unexpected {type(problem).__name__}: {text[0][:300] if text else ''}"
        hint, code = "run again with HY_DEBUG=1 for the traceback", 1
    click.echo(f"{colored('Error:', 'red')} {one_line(message)}", err=True)
    if hint:
        click.echo(f"Hint: {one_line(hint)}", err=True)
    return code


def one_line(text: str) -> str:
    return " ".join(clean(text.replace("\n", " ")).split())


def has_current_folder() -> bool:
    """Whether the current folder still exists."""
    try:
        os.getcwd()
    except OSError:
        return False
    return True


def understood(error: BaseException) -> BaseException:
    """Turn errors of memory, disk and text of libraries into `HyError`s; return others as they are."""
    if is_out_of_memory(error):
        return MemoryLimitError("out of memory", "try a smaller --size, fewer --frames, or --tiling official")
    if isinstance(error, FileNotFoundError) and not error.filename and not has_current_folder():
        return HyError("the current folder doesn't exist any more", "go to another one")
    if isinstance(error, OSError) and error.strerror:
        return HyError(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
    if isinstance(error, UnicodeEncodeError):
        return UsageError(
            f"{error.object[error.start : error.end]!r} is no character", "a lone surrogate: remove it"
        )
    return error


class Progress:
    """Report phases and sampling steps on stderr, in one of the `MODES`."""

    def __init__(self, mode: str = "auto", quiet: bool = False) -> None:
        if mode == "auto":
            mode = "bar" if sys.stderr.isatty() and not quiet else "off"
        self.mode, self.quiet = mode, quiet
        self.started = time.perf_counter()
        self.bar: Any = None
        self.task: Any = None

    def phase(self, name: str, detail: str = "") -> None:
        """Report the start of a phase: load, encode, sample, decode, finish."""
        if self.mode == "json":
            self.event("phase", name=name, detail=detail)
        elif self.mode == "bar" and name != "sample":
            self.close()
            note(f"{DOING.get(name, name)} {detail}".rstrip())

    def step(self, step: int, steps: int, seconds: float, **more: Any) -> None:
        """Report that sampling step `step` of `steps` (from 1) took `seconds`."""
        if self.mode == "json":
            self.event("step", step=step, steps=steps, seconds=round(seconds, 4), **more)
        elif self.mode == "bar":
            if self.bar is None:
                self.open(steps)
            self.bar.update(self.task, completed=step, rate=f"{seconds:.1f} s/step")
            if step == steps:
                self.close()

    def note(self, text: str) -> None:
        """Print a line, with JSON as an event."""
        if self.mode == "json":
            self.event("note", text=text)
        elif not self.quiet:
            note(text)

    def event_if_json(self, kind: str, **values: Any) -> None:
        """Print an event if events are JSON."""
        if self.mode == "json":
            self.event(kind, **values)

    def event(self, kind: str, **values: Any) -> None:
        """Print one JSON object on a line of stderr."""
        seconds = round(time.perf_counter() - self.started, 3)
        click.echo(json.dumps({"event": kind, "at": seconds, **values}), err=True)

    def open(self, steps: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("sampling"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
        )
        self.bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
        self.task = self.bar.add_task("sampling", total=steps, rate="")
        self.bar.start()

    def close(self) -> None:
        """Remove the bar."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()
