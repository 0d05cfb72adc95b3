"""Find faces and follow them through a clip.

Boxes are [left, top, right, bottom] in parts of the picture, 0 to 1; frames are uint8 [F, H, W, 3].
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from hy_core.errors import HyError
from hy_core.imports import import_target

log = logging.getLogger(__name__)

_SAME = 0.2  # least overlap of one face's boxes in frames that follow each other
_NEAR = 0.75  # or this near, in widths of the face


class FaceDetector(Protocol):
    """Anything that finds faces in one picture."""

    def detect(self, frame: np.ndarray) -> np.ndarray:
        """Return [N, 5] for a frame uint8 [H, W, 3]: box in parts of the picture, and score 0 to 1."""
        ...


DETECTORS: dict[str, str] = {"mediapipe": "hy_avatar.faces_mediapipe:MediaPipeFaces"}


def detector(name: str = "mediapipe") -> FaceDetector:
    """Make a detector by its name in `DETECTORS`, or by "module:attribute" (called without arguments)."""
    make: Callable[[], FaceDetector] = import_target(name, f"face detector {name!r}", DETECTORS)
    return make()


@dataclass(frozen=True, eq=False)
class FaceTrack:
    """One face through a clip. `boxes` [F, 4] is filled where the face isn't seen; `seen` [F] says where it is."""

    boxes: np.ndarray
    seen: np.ndarray

    def present(self, most_gap: int = 4) -> np.ndarray:
        """Say in which frames the face is there, [F]: seen, or unseen for a short while between two sights."""
        there = self.seen.copy()
        sights = np.flatnonzero(self.seen)
        for a, b in zip(sights[:-1], sights[1:], strict=True):
            if b - a - 1 <= most_gap:
                there[a:b] = True
        return there


def track(
    frames: Iterable[np.ndarray], finder: FaceDetector, smoothing: float = 1.0, least_share: float = 0.2
) -> list[FaceTrack]:
    """Find and follow the faces of a clip; they come from left to right by their first place.

    `smoothing` is the standard deviation, in frames, of the Gaussian that calms the boxes (0 for none). A face seen in
    less than `least_share` of the frames is dropped. An empty list when there is no face.

    Frames are uint8 [H, W, 3].
    """
    return link([finder.detect(frame) for frame in frames], smoothing, least_share)


def link(found: Sequence[np.ndarray], smoothing: float = 1.0, least_share: float = 0.2) -> list[FaceTrack]:
    """Join each frame's boxes, [N, 4 or 5], to tracks: see `track`."""
    count = len(found)
    tracks: list[dict[int, np.ndarray]] = []
    for index, boxes in enumerate(found):
        boxes = np.asarray(boxes, np.float64)[:, :4] if len(boxes) else np.zeros((0, 4))
        pairs = [
            (_likeness(one[max(one)], box), t, b)
            for t, one in enumerate(tracks)
            for b, box in enumerate(boxes)
        ]
        used_tracks: set[int] = set()
        used_boxes: set[int] = set()
        for likeness, t, b in sorted(pairs, reverse=True):
            if likeness > 0 and t not in used_tracks and b not in used_boxes:
                tracks[t][index] = boxes[b]
                used_tracks.add(t)
                used_boxes.add(b)
        tracks += [{index: box} for b, box in enumerate(boxes) if b not in used_boxes]
    kept = [one for one in tracks if len(one) >= max(1, least_share * count)]
    kept.sort(key=lambda one: float(one[min(one)][[0, 2]].sum()))
    return [_filled(one, count, smoothing) for one in kept]


def largest(tracks: Sequence[FaceTrack]) -> FaceTrack:
    """Return the face that is largest in the mean; `HyError` when there is none."""
    if not tracks:
        raise HyError("no face was found", "give a face mask from a file, or let the whole picture move")
    return max(tracks, key=lambda one: float(np.prod(one.boxes[:, 2:] - one.boxes[:, :2], axis=1).mean()))


def _likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Say how sure two boxes are one face: overlap, or at least nearness; 0 for two faces."""
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    shared = float(np.prod(np.maximum(high - low, 0)))
    areas = float(np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]))
    overlap = shared / max(areas - shared, 1e-12)
    if overlap > _SAME:
        return 1 + overlap
    size = (one[2:] - one[:2] + other[2:] - other[:2]) / 2
    way = np.abs(one[:2] + one[2:] - other[:2] - other[2:]) / 2 / np.maximum(size, 1e-6)
    return max(0.0, 1 - float(np.hypot(*way)) / _NEAR)


def _filled(sights: dict[int, np.ndarray], count: int, smoothing: float) -> FaceTrack:
    times = np.array(sorted(sights))
    values = np.stack([sights[int(time)] for time in times])
    frames = np.arange(count)
    boxes = np.stack([np.interp(frames, times, values[:, side]) for side in range(4)], axis=1)
    seen = np.zeros(count, bool)
    seen[times] = True
    return FaceTrack(np.clip(smooth(boxes, smoothing), 0, 1), seen)


def smooth(values: np.ndarray, deviation: float) -> np.ndarray:
    """Calm a path [F, ...] by a Gaussian of `deviation` frames; the ends are held."""
    if deviation <= 0 or len(values) < 2:
        return values
    reach = int(np.ceil(3 * deviation))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    weights /= weights.sum()
    padded = np.concatenate([values[:1].repeat(reach, 0), values, values[-1:].repeat(reach, 0)])
    return sum(weight * padded[k : k + len(values)] for k, weight in enumerate(weights))


def one_face(tracks: Sequence[FaceTrack], frames: int, what: str) -> FaceTrack:
    """Return the face to work on, with a warning when there is a choice or it leaves the picture.

    No face: `HyError`. Two or more: the largest. A face that is away for long: its last place is held, and
    `FaceTrack.present` tells so.
    """
    chosen = largest(tracks)
    if len(tracks) > 1:
        log.warning("%s shows %d faces; the largest one is taken", what, len(tracks))
    away = frames - int(chosen.present().sum())
    if away:
        log.warning("the face leaves %s for %d of %d frames; its last place is held", what, away, frames)
    return chosen
