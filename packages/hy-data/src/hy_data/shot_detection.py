"""Find the shots of a video of any length in one decoding: hard cuts, dissolves and fades.

Hard cuts are PySceneDetect's, on frames 128 pixels wide; gradual transitions are those of `hy_data.transitions`, on
frames 48 pixels wide. Only a chunk of these is in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from av.video.reformatter import VideoReformatter
from hy_core.errors import HyError
from hy_core.media import timeline

from hy_data.transitions import HEIGHT, LONGEST, WIDTH, Transition, find_gradual

Network = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Frames uint8 [T, 27, 48, 3] to the chances that each is the last before a cut, and within a transition."""

_CUT_SIZE = (72, 128)
_CHUNK, _MARGIN = 2000, 2 * LONGEST + 32  # frames
_NEAR = 3  # frames that a hard cut may be off the end of a gradual transition that it belongs to
_GAP, _CHANGED, _ALIKE = (
    14,
    0.012,
    0.5,
)  # frames apart, mean square, and correlation of what a network looks at
_SEEN, _UNSEEN = 0.5, 0.1  # chances of a transition


@dataclass(frozen=True)
class Found:
    """`times` of all frames in seconds, float64 [T], the `end` of the last, and the transitions in order."""

    times: np.ndarray
    end: float
    transitions: list[Transition]

    def shots(self, margin: int = 0) -> list[tuple[int, int]]:
        """Return the shots as frames [first, stop), `margin` frames less at gradual transitions."""
        starts, stops = [0], []
        for one in self.transitions:
            gap = margin if one.stop > one.first else 0
            stops.append(one.first - gap)
            starts.append(one.stop + gap)
        stops.append(len(self.times))
        return [(a, b) for a, b in zip(starts, stops, strict=True) if 0 <= a < b]


def detect_shots(
    pictures: Iterator[timeline.Picture],
    detector: Literal["adaptive", "content", "network"] = "adaptive",
    threshold: float = 3.0,
    network: Network | None = None,
    look: Literal["changes", "all"] = "changes",
) -> Found:
    """Return the times and transitions of consecutive frames.

    `threshold`: of PySceneDetect's detector. A `network` looks at changes that no transition explains, or at all
    frames, and then also drops dissolves that it sees nothing of. The detector "network" uses nothing else.
    `HyError` for no frames and for a clock that goes back.
    """
    finder = _Finder(None if detector == "network" else _hard_cuts(detector, threshold), network, look)
    small, tiny = VideoReformatter(), VideoReformatter()
    times: list[float] = []
    end = 0.0
    for picture in pictures:
        if times and picture.time <= times[-1]:
            raise HyError(f"frame {len(times)} comes at {picture.time:.3f} s, not after {times[-1]:.3f} s")
        times.append(picture.time)
        end = picture.time + picture.length
        finder.add(
            picture.to_array(_CUT_SIZE, scaler=small) if finder.hard else None,
            picture.to_array((HEIGHT, WIDTH), scaler=tiny),
        )
    if not times:
        raise HyError("no frames")
    return Found(np.asarray(times), end, finder.finish())


class _Finder:
    def __init__(self, hard: Any, network: Network | None, look: str) -> None:
        self.hard, self.network, self.look = hard, network, look
        self.count, self.start, self.settled = 0, 0, 0  # frames seen, the first one held, those decided on
        self.held: list[np.ndarray] = []
        self.cuts: list[int] = []
        self.gradual: list[Transition] = []

    def add(self, small: np.ndarray | None, tiny: np.ndarray) -> None:
        if small is not None:
            for _ in range(1 if self.count else 3):  # so that the window before the first frames is full
                self._feed(small)
            self.last = small
        self.held.append(tiny)
        self.count += 1
        if len(self.held) >= _CHUNK:
            self._decide(self.count - _MARGIN)

    def finish(self) -> list[Transition]:
        if self.hard:
            for _ in range(2):
                self._feed(self.last)
        self._decide(self.count)
        cuts = [
            Transition("cut", cut, cut)
            for cut in dict.fromkeys(self.cuts)
            if 0 < cut < self.count
            and not any(one.first - _NEAR <= cut <= one.stop + _NEAR for one in self.gradual)
        ]
        return sorted([*cuts, *self.gradual], key=lambda one: one.first)

    def _feed(self, small: np.ndarray) -> None:
        self.cuts += [cut for cut in self.hard(small) if cut > 0]

    def _decide(self, stop: int) -> None:
        """Find the transitions up to frame `stop`, and let go of frames that aren't needed any more."""
        frames = np.stack(self.held)
        own = [cut - self.start for cut in self.cuts if cut >= self.start]
        gradual = [] if self.hard is None else find_gradual(frames, own)
        if self.network is not None:
            gradual, more = _checked(frames, gradual, own, self.network, self.look if self.hard else "all")
            self.cuts = sorted({*self.cuts, *(cut + self.start for cut in more)})
        for one in gradual:
            one = Transition(one.kind, one.first + self.start, one.stop + self.start)
            if one.first >= stop or one.stop <= self.settled:
                continue
            if self.gradual and one.first <= self.gradual[-1].stop:  # seen in the chunk before too
                last = self.gradual.pop()
                one = Transition(last.kind, min(last.first, one.first), max(last.stop, one.stop))
            self.gradual.append(one)
        self.settled = stop
        kept = max(stop - _MARGIN, self.start)
        self.held, self.start = self.held[kept - self.start :], kept


def _hard_cuts(detector: str, threshold: float) -> Callable[[np.ndarray], list[int]]:
    """Return what takes the next frame uint8 [H, W, 3] and returns the cuts found, as first frames of new shots.

    The first frame must be given three times.
    """
    from scenedetect.common import FrameTimecode  # type: ignore[import-untyped]
    from scenedetect.detectors import AdaptiveDetector, ContentDetector  # type: ignore[import-untyped]

    found = (
        AdaptiveDetector(adaptive_threshold=threshold, min_scene_len=1)
        if detector == "adaptive"
        else ContentDetector(threshold=threshold, min_scene_len=1)
    )
    number = 0

    def feed(image: np.ndarray) -> list[int]:
        nonlocal number
        at, number = FrameTimecode(number, fps=25.0), number + 1
        return [cut.frame_num - 2 for cut in found.process_frame(at, np.ascontiguousarray(image[..., ::-1]))]

    return feed


def _checked(
    frames: np.ndarray, gradual: list[Transition], cuts: list[int], network: Network, look: str
) -> tuple[list[Transition], list[int]]:
    """Return the gradual transitions and more cuts after a network has looked."""
    explained = np.zeros(len(frames), bool)
    for first, stop in [(cut, cut) for cut in cuts] + [(one.first, one.stop) for one in gradual]:
        explained[max(first - _GAP, 0) : stop + _GAP] = True
    wanted = np.ones(len(frames), bool) if look == "all" else _changes(frames) & ~explained
    last, within = np.zeros(len(frames)), np.zeros(len(frames))
    for first, stop in _runs(_widened(wanted, _GAP)):
        begin, end = max(first - 25, 0), min(stop + 25, len(frames))
        ends, insides = network(frames[begin:end])
        last[first:stop] = ends[first - begin : stop - begin]
        within[first:stop] = insides[first - begin : stop - begin]
    if look == "all":
        gradual = [
            one
            for one in gradual
            if one.kind == "fade"
            or max(last[one.first : one.stop].max(), within[one.first : one.stop].max()) >= _UNSEEN
        ]
    found, hard = list(gradual), []
    for first, stop in _runs((last > _SEEN) | (within > _SEEN)):
        if not (last[first:stop] > _SEEN).any() or any(
            one.first - _NEAR <= stop and first <= one.stop + _NEAR for one in found
        ):
            continue
        if stop - first <= 2:
            hard.append(first + int(last[first:stop].argmax()) + 1)
        elif not any(first - 1 <= cut <= stop + 1 for cut in cuts):
            found.append(Transition("dissolve", first, stop))
    return sorted(found, key=lambda one: one.first), [
        cut for cut in hard if not any(abs(cut - other) <= 2 for other in cuts)
    ]


def _changes(frames: np.ndarray) -> np.ndarray:
    """Frames in the middle of a change of the whole picture: bool [T]."""
    values = frames.reshape(len(frames), -1, 3).astype(np.float32) / 255
    values = (values - values.mean(1, keepdims=True)).reshape(len(frames), -1)
    found = np.zeros(len(frames), bool)
    if len(frames) > _GAP:
        own = np.einsum("tv,tv->t", values, values) / values.shape[1]
        across = np.einsum("tv,tv->t", values[:-_GAP], values[_GAP:]) / values.shape[1]
        change = own[:-_GAP] + own[_GAP:] - 2 * across
        alike = across / np.maximum(np.maximum(own[:-_GAP], own[_GAP:]), 1e-6)
        found[_GAP // 2 : _GAP // 2 + len(across)] = (change > _CHANGED) & (alike < _ALIKE)
    return found


def _widened(wanted: np.ndarray, by: int) -> np.ndarray:
    found = wanted.copy()
    for first, stop in _runs(wanted):
        found[max(first - by, 0) : stop + by] = True
    return found


def _runs(wanted: np.ndarray) -> list[tuple[int, int]]:
    """Return the runs of True as [first, stop)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], wanted.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
