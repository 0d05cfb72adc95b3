"""Progress of a run: a table that is redrawn on a terminal, or JSON lines."""

from __future__ import annotations

import json
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from hy_core.cli import output

if TYPE_CHECKING:
    from hy_data.engine.driver import Driver

_EVERY = {"bar": 0.5, "json": 2.0}
"""Seconds between two reports, by mode."""


class RunProgress:
    """Shows a driver's state on stderr, in one of the modes of `hy_core.cli.output`."""

    def __init__(self, mode: str = "auto", quiet: bool = False) -> None:
        self.words = output.Progress(mode, quiet)
        self.mode = self.words.mode
        self._last = 0.0
        self._live: Any = None
        self._failed: Any = None

    def note(self, text: str) -> None:
        """Print a line."""
        self.words.note(text)

    def update(self, driver: Driver) -> None:
        """Show the state if it is time."""
        if self.mode not in _EVERY:
            return
        now = time.monotonic()
        if driver.pace.last_failed is not None and driver.pace.last_failed != self._failed:
            self._failed = driver.pace.last_failed
            path, stage, reason = self._failed
            self.words.event_if_json("failed", path=path, stage=stage, reason=reason)
        if now - self._last < _EVERY[self.mode]:
            return
        self._last = now
        state = state_of(driver)
        if self.mode == "json":
            self.words.event("progress", **json.loads(json.dumps(state)))
        else:
            self._draw(state)

    def close(self) -> None:
        """Remove the table."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __enter__(self) -> RunProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _draw(self, state: dict[str, Any]) -> None:
        from rich.console import Console
        from rich.live import Live

        if self._live is None:
            self._live = Live(console=Console(stderr=True), transient=True, auto_refresh=False)
            self._live.start()
        self._live.update(_table(state), refresh=True)


def state_of(driver: Driver) -> dict[str, Any]:
    """Return what is known of a run now, as JSON: inputs, clips, seconds left, and the stages."""
    pace = driver.pace
    elapsed = time.monotonic() - pace.started
    done = pace.bytes / pace.total_bytes if pace.total_bytes else pace.files / max(pace.inputs, 1)
    # Files that were read aren't through all stages yet: count those of waiting clips back in part.
    waiting = sum(map(len, driver.queues)) + sum(map(driver.in_flight, range(len(driver.groups))))
    through = sum(pace.clips.values())
    done *= through / max(through + waiting, 1)
    limiting = limiting_stage({name: (one.busy, one.media) for name, one in pace.stages.items()})
    stages = {}
    for group, members in enumerate(driver.groups):
        for number, stage in enumerate(members):
            one = pace.stages[stage.name]
            stages[stage.name] = {
                **one.counts,
                "waiting": (len(driver.queues[group]) + len(driver.again[group])) if number == 0 else 0,
                "running": driver.in_flight(group) if number == 0 else 0,
                "clips_per_second": round(sum(one.counts.values()) / elapsed, 3) if elapsed else 0.0,
                "real_time": None if one.factor is None else round(one.factor, 2),
            }
    return {
        "inputs": pace.inputs,
        "read": pace.files,
        "clips": dict(pace.clips),
        "seconds": round(elapsed, 1),
        "eta": round(elapsed * (1 - done) / done) if done > 0.01 and elapsed > 2 else None,
        "limiting": limiting,
        "stages": stages,
    }


def limiting_stage(times: dict[str, tuple[float, float]]) -> str | None:
    """Return the stage whose workers were busy longest; `times` are seconds of work and of video."""
    busy = {name: seconds for name, (seconds, _) in times.items() if seconds > 0}
    return max(busy, key=busy.__getitem__) if busy else None


def clock(seconds: float | None) -> str:
    """Return seconds as 1:02:03 or 2:03."""
    if seconds is None:
        return "-:--"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _table(state: dict[str, Any]) -> Any:
    from rich.table import Table

    clips = state["clips"]
    table = Table(box=None, padding=(0, 2, 0, 0), title_justify="left", title_style="")
    table.title = (
        f"{state['read']} of {state['inputs']} files · {clips['ok']} clips ok, {clips['filtered']} filtered, "
        f"{clips['failed']} failed · {clock(state['seconds'])}, {clock(state['eta'])} left"
    )
    for name in ("stage", "done", "filtered", "failed", "waiting", "running", "clips/s", "x real time", ""):
        table.add_column(name, justify="left" if name in ("stage", "") else "right", header_style="dim")
    for name, one in state["stages"].items():
        table.add_row(
            name,
            str(one["ok"] + one["filtered"] + one["failed"]),
            str(one["filtered"] or ""),
            str(one["failed"] or ""),
            str(one["waiting"] or ""),
            str(one["running"] or ""),
            f"{one['clips_per_second']:.2f}",
            "" if one["real_time"] is None else f"{one['real_time']:.1f}",
            "limits" if name == state["limiting"] else "",
        )
    return table
