"""Frames of a clip at the rates of a model's encoders, window by window, in one pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hy_core.errors import HyError

from hy_audio.windows import Window


@dataclass(frozen=True)
class FrameSampler:
    """How an encoder takes frames: how many a second, and what is computed from one of uint8 [H, W, 3] and stored."""

    fps: float
    prepare: Callable[[np.ndarray], Any]

    def times(self, start: float, stop: float) -> np.ndarray:
        """Return the times in seconds from `start` to before `stop` at which a frame is taken, at least one."""
        return start + np.arange(max(round((stop - start) * self.fps), 1)) / self.fps


def sample_windows(
    frames: Iterable[tuple[float, np.ndarray]],
    windows: Sequence[Window],
    samplers: Mapping[str, FrameSampler],
) -> Iterator[tuple[Window, dict[str, list[Any]]]]:
    """Yield each window with the prepared frames of every sampler.

    `frames`: (seconds, uint8 [H, W, 3]) in order of time. At each time the frame that is shown then is taken, so that
    frame rates may vary. Only what the samplers of overlapping windows prepared is in memory. `HyError` for no frames.
    """
    waiting = list(windows)
    times = {w: {name: sampler.times(w.start, w.stop) for name, sampler in samplers.items()} for w in waiting}
    prepared: dict[Window, dict[str, list[Any]]] = {
        window: {name: [] for name in samplers} for window in waiting
    }

    def take(image: np.ndarray, until: float) -> Iterator[tuple[Window, dict[str, list[Any]]]]:
        """Take a frame that is shown until a time, and yield the windows that are complete then."""
        results: dict[str, Any] = {}
        for window in waiting:
            if window.start >= until:
                break
            for name, sampler in samplers.items():
                due, taken = times[window][name], prepared[window][name]
                while len(taken) < len(due) and due[len(taken)] < until - 1e-6:
                    if name not in results:
                        results[name] = sampler.prepare(image)
                    taken.append(results[name])
        while waiting and all(
            len(prepared[waiting[0]][name]) == len(times[waiting[0]][name]) for name in samplers
        ):
            window = waiting.pop(0)
            yield window, prepared.pop(window)

    shown = None
    for time, image in frames:
        if shown is not None:
            yield from take(shown, time)
        shown = image
        if not waiting:
            return
    if shown is None:
        raise HyError("no frames to look at")
    yield from take(shown, math.inf)
