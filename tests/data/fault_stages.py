"""A plugin of stages for tests of the engine: some crash, hang, or fail on clips whose file name says so."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from hy_core import hookimpl
from hy_core.data import ClipRecord, Score, Stage
from hy_core.errors import HyError
from hy_core.media import timeline
from hy_core.options import option
from hy_data.frames import ClipFrames, FrameStage, View

SMALL = View(16, gray=True)


class Extent(Stage):
    """Measure the file."""

    name = "extent"

    def found(self, record: ClipRecord) -> tuple[dict[str, Any], str | None]:
        extent = timeline.measure(record.file)
        if not extent.frames:
            return {}, "no pictures"
        facts = {"duration": extent.duration, "frames": extent.frames, "has_audio": extent.sounds > 0}
        return facts, "too long" if extent.duration > 3600 else None


class Halves(Stage):
    """Cut a file into parts."""

    name = "halves"

    @dataclass(frozen=True)
    class Options(Stage.Options):
        parts: int = option(2, help="How many.", minimum=1)

    def run(self, record: ClipRecord) -> Iterable[ClipRecord]:
        duration: Any = record.results["duration"]
        ends = np.linspace(0, duration, self.options.parts + 1).tolist()
        for number, (start, stop) in enumerate(zip(ends, ends[1:], strict=False)):
            yield record.with_results({"span": [start, stop], "part": number, "mark": np.arange(2) + number})


class Bright(FrameStage):
    """Mean brightness and a vector of the frames' means."""

    name = "bright"
    scores = (Score("brightness", "mean of the luma", "high"),)

    @dataclass(frozen=True)
    class Options(Stage.Options):
        scale: float = option(1.0, help="Factor.")
        nap: float = option(0.0, help="Seconds to wait.")

    def views(self) -> tuple[View, ...]:
        return (SMALL,)

    def measure(self, record: ClipRecord, frames: ClipFrames) -> tuple[dict[str, Any], str | None]:
        means = frames[SMALL].mean((1, 2)).astype(np.float32)
        time.sleep(self.options.nap)
        height, width = frames.size
        brightness = float(means.mean()) * self.options.scale
        return {"brightness": brightness, "means": means[:4], "height": height, "width": width}, None


class Trouble(FrameStage):
    """Do what the file's name says: crash, hang, raise, refuse."""

    name = "trouble"

    def views(self) -> tuple[View, ...]:
        return (SMALL,)

    def measure(self, record: ClipRecord, frames: ClipFrames) -> tuple[dict[str, Any], str | None]:
        assert not record.results, "it needs no other stage"
        word = record.path.name
        if "crash" in word:
            os.kill(os.getpid(), signal.SIGSEGV)
        if "hang" in word:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            while True:
                time.sleep(60)
        if "leak" in word:
            np.ones(1 << 40)
        if "raise" in word:
            raise ValueError("an unexpected\nvalue")
        if "mistake" in word:
            raise HyError("this clip is not wanted here")
        return {"calm": 1.0}, "named so" if "filter" in word else None


class After(FrameStage):
    """Read the brightness, of the same group."""

    name = "after"
    needs: ClassVar[tuple[str, ...] | None] = ("bright",)

    def views(self) -> tuple[View, ...]:
        return (SMALL,)

    def measure(self, record: ClipRecord, frames: ClipFrames) -> tuple[dict[str, Any], str | None]:
        return {"double": 2 * float(record.results["brightness"])}, None  # type: ignore[arg-type]


class Last(Stage):
    """See everything; it runs in a worker of its own."""

    name = "last"

    def found(self, record: ClipRecord) -> tuple[dict[str, Any], str | None]:
        return {"seen": sorted([*record.results, *record.vectors])}, None


@hookimpl
def register_stages(register: Callable[..., None]) -> None:
    """Register them all."""
    for stage in (Extent, Halves, Bright, Trouble, After, Last):
        register(stage.name, stage)
