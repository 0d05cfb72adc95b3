"""Sound of any length from a maker of short ones: windows that overlap, cross-faded, within scenes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hy_core.errors import HyError, UsageError

from hy_audio.reading import Sight

_SHORTEST = 1.0  # seconds; a shorter scene joins its neighbour
_EDGE = 0.01  # seconds in which sound goes and comes at a cut
_SHORT = 0.1  # seconds that a maker may leave at the end of a window


@dataclass(frozen=True)
class Window:
    """A part of a clip that is made at once, in seconds; `cut` says that a scene begins with it."""

    start: float
    stop: float
    cut: bool = False

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.stop - self.start


def plan(duration: float, seconds: float, overlap: float = 1.0, cuts: Sequence[float] = ()) -> list[Window]:
    """Cover `duration` seconds with windows of `seconds` that overlap by `overlap` or more.

    All windows of a scene have full length, evenly spread, so that the last is no shorter than what the maker
    knows; only a scene that is shorter itself has one shorter window. No window reaches over a cut. Scenes of
    under a second join the next one (the last of them, the one before).
    """
    if not (math.isfinite(duration) and duration > 0 and seconds > 0 and 0 <= overlap <= seconds / 2):
        raise UsageError(
            f"can't cover {duration:g} s by windows of {seconds:g} s that overlap by {overlap:g} s",
            "the overlap is at most half of a window",
        )
    edges = [0.0]
    for cut in sorted(cuts):
        if cut - edges[-1] >= _SHORTEST and duration - cut >= _SHORTEST:
            edges.append(float(cut))
    windows = []
    for begin, end in zip(edges, [*edges[1:], duration], strict=True):
        free = end - begin - seconds
        count = 1 if free <= 1e-6 else 1 + math.ceil(free / (seconds - overlap) - 1e-9)
        for index in range(count):
            start = begin + (free * index / (count - 1) if count > 1 else 0)
            windows.append(Window(start, min(start + seconds, end), index == 0))
    return windows


def views(
    frames: Iterable[tuple[float, np.ndarray]], windows: Sequence[Window], sights: Mapping[str, Sight]
) -> Iterator[tuple[Window, dict[str, list[Any]]]]:
    """Yield each window with what is seen in it: for every sight its prepared frames.

    One pass through `frames` (seconds, picture), of which no more are kept than the sights of overlapping windows
    prepare. At an instant one sees the last frame that began before it, so that rates that vary do no harm.
    """
    waiting = list(windows)
    instants = {w: {name: sight.instants(w.start, w.stop) for name, sight in sights.items()} for w in waiting}
    seen: dict[Window, dict[str, list[Any]]] = {window: {name: [] for name in sights} for window in waiting}

    def show(image: np.ndarray, until: float) -> Iterator[tuple[Window, dict[str, list[Any]]]]:
        prepared: dict[str, Any] = {}
        for window in waiting:
            if window.start >= until:
                break
            for name, sight in sights.items():
                times, got = instants[window][name], seen[window][name]
                while len(got) < len(times) and times[len(got)] < until - 1e-6:
                    if name not in prepared:
                        prepared[name] = sight.prepare(image)
                    got.append(prepared[name])
        while waiting and all(
            len(seen[waiting[0]][name]) == len(instants[waiting[0]][name]) for name in sights
        ):
            window = waiting.pop(0)
            yield window, seen.pop(window)

    before = None
    for time, image in frames:
        if before is not None:
            yield from show(before, time)
        before = image
        if not waiting:
            return
    if before is None:
        raise HyError("no frames to look at")
    yield from show(before, math.inf)


def stitched(
    windows: Sequence[Window], sounds: Iterable[np.ndarray], rate: int, overlap: float = 1.0
) -> Iterator[np.ndarray]:
    """Join the sounds of the windows of `plan`, each float32 [channels, n] at `rate` Hz, in pieces.

    Neighbours within a scene are cross-faded over the last `overlap` seconds that they share; at a cut one goes
    and the next comes in 10 ms. What a maker gives too much is cut off; `HyError` if it gives too little.
    """
    fade, edge = round(overlap * rate), round(_EDGE * rate)
    tail, at = None, 0  # what is not yet given out, and where it begins
    for window, sound in zip(windows, sounds, strict=True):
        start, stop = round(window.start * rate), round(window.stop * rate)
        sound = _fitted(np.atleast_2d(np.asarray(sound, np.float32)), stop - start, rate)
        if tail is None:
            tail, at = sound, start
            continue
        end = at + tail.shape[1]
        if window.cut:
            ramp = np.linspace(0, 1, min(edge, tail.shape[1], sound.shape[1]), dtype=np.float32)
            tail[:, tail.shape[1] - len(ramp) :] *= ramp[::-1]
            sound[:, : len(ramp)] *= ramp
            yield tail
            tail, at = sound, start
            continue
        length = min(fade, end - start, tail.shape[1])
        cut = end - length - at
        yield tail[:, :cut]
        yield crossfaded(tail[:, cut:], sound[:, end - length - start : end - start])
        tail, at = sound[:, end - start :], end
    if tail is not None:
        yield tail


def crossfaded(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Go from one sound to another of the same length at an even level, however alike they are.

    The ramps are divided by the level that they would give for the measured correlation: equal power for unlike
    sounds, a straight line for equal ones.
    """
    count = old.shape[1]
    if not count:
        return old
    rise = (np.arange(count, dtype=np.float32) + 0.5) / count
    power = float(np.sqrt((old**2).sum() * (new**2).sum()))
    alike = min(max(float((old * new).sum()) / power, 0.0), 1.0) if power > 0 else 0.0
    level = np.sqrt(rise**2 + (1 - rise) ** 2 + 2 * alike * rise * (1 - rise))
    return (old * (1 - rise) + new * rise) / level


def _fitted(sound: np.ndarray, count: int, rate: int) -> np.ndarray:
    """The sound with exactly `count` samples, a copy."""
    lacks = count - sound.shape[1]
    if lacks > _SHORT * rate:
        raise HyError(f"a window of {count / rate:.2f} s got only {sound.shape[1] / rate:.2f} s of sound")
    if not np.isfinite(sound).all():
        raise HyError("the sound holds NaN or infinity", "use --dtype fp32")
    if lacks <= 0:
        return sound[:, :count].copy()
    ramp = np.ones(sound.shape[1], np.float32)
    ramp[-round(0.005 * rate) :] = np.linspace(1, 0, len(ramp[-round(0.005 * rate) :]))
    return np.pad(sound * ramp, ((0, 0), (0, lacks)))
