"""Windows that cover a clip of any length, and their sounds joined by cross-fades."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from hy_core.errors import HyError, UsageError

_MIN_SCENE = 1.0  # seconds; a shorter scene joins its neighbour
_CUT_FADE = 0.01  # seconds of the fades at a cut
_MAX_MISSING = 0.1  # seconds that may lack at the end of a window


@dataclass(frozen=True)
class Window:
    """A part of a clip that is generated at once, in seconds; `cut`: a scene begins with it."""

    start: float
    stop: float
    cut: bool = False

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.stop - self.start


def plan_windows(
    duration: float, seconds: float, overlap: float = 1.0, cuts: Sequence[float] = ()
) -> list[Window]:
    """Cover `duration` seconds with windows of `seconds` that overlap by `overlap` seconds or more.

    The windows of a scene have full length and are evenly spread; a scene that is shorter has one shorter window. No
    window contains a time of `cuts`. A scene of under a second joins the next one, the last joins the one before.
    UsageError for an overlap of more than half a window, and for lengths that aren't positive.
    """
    if not (math.isfinite(duration) and duration > 0 and seconds > 0 and 0 <= overlap <= seconds / 2):
        raise UsageError(
            f"can't cover {duration:g} s by windows of {seconds:g} s that overlap by {overlap:g} s",
            "the overlap is at most half of a window",
        )
    edges = [0.0]
    for cut in sorted(cuts):
        if cut - edges[-1] >= _MIN_SCENE and duration - cut >= _MIN_SCENE:
            edges.append(float(cut))
    windows = []
    for begin, end in zip(edges, [*edges[1:], duration], strict=True):
        free = end - begin - seconds
        count = 1 if free <= 1e-6 else 1 + math.ceil(free / (seconds - overlap) - 1e-9)
        for index in range(count):
            start = begin + (free * index / (count - 1) if count > 1 else 0)
            windows.append(Window(start, min(start + seconds, end), index == 0))
    return windows


def join_windows(
    windows: Sequence[Window], sounds: Iterable[np.ndarray], rate: int, overlap: float = 1.0
) -> Iterator[np.ndarray]:
    """Join the sounds of the windows of `plan_windows`, each float32 [channels, n] at `rate` Hz, in pieces.

    Neighbours within a scene are cross-faded over the last `overlap` seconds that they share; at a cut the sounds are
    faded out and in over 10 ms. Samples beyond a window are cut off; `HyError` for a sound that is over 0.1 s too short
    or not finite.
    """
    fade, edge = round(overlap * rate), round(_CUT_FADE * rate)
    tail, at = None, 0  # what isn't yielded yet, and its first sample
    for window, sound in zip(windows, sounds, strict=True):
        start, stop = round(window.start * rate), round(window.stop * rate)
        sound = _exact_length(np.atleast_2d(np.asarray(sound, np.float32)), stop - start, rate)
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
        yield crossfade(tail[:, cut:], sound[:, end - length - start : end - start])
        tail, at = sound[:, end - start :], end
    if tail is not None:
        yield tail


def crossfade(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Cross-fade two sounds [channels, n] of equal length at a constant level.

    The ramps are divided by the level that they give for the measured correlation of the sounds: an equal-power fade
    for uncorrelated sounds, a linear one for equal sounds.
    """
    count = old.shape[1]
    if not count:
        return old
    rise = (np.arange(count, dtype=np.float32) + 0.5) / count
    power = float(np.sqrt((old**2).sum() * (new**2).sum()))
    alike = min(max(float((old * new).sum()) / power, 0.0), 1.0) if power > 0 else 0.0
    level = np.sqrt(rise**2 + (1 - rise) ** 2 + 2 * alike * rise * (1 - rise))
    return (old * (1 - rise) + new * rise) / level


def _exact_length(sound: np.ndarray, count: int, rate: int) -> np.ndarray:
    """Return a copy with exactly `count` samples, faded out where some are missing."""
    missing = count - sound.shape[1]
    if missing > _MAX_MISSING * rate:
        raise HyError(f"a window of {count / rate:.2f} s has only {sound.shape[1] / rate:.2f} s of sound")
    if not np.isfinite(sound).all():
        raise HyError("the sound holds NaN or infinity", "use --dtype fp32")
    if missing <= 0:
        return sound[:, :count].copy()
    ramp = np.ones(sound.shape[1], np.float32)
    ramp[-round(0.005 * rate) :] = np.linspace(1, 0, len(ramp[-round(0.005 * rate) :]))
    return np.pad(sound * ramp, ((0, 0), (0, missing)))
