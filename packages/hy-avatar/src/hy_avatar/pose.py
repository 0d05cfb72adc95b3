"""Poses of people in a clip: from detections to tracks, and files of them.

Points are in OpenPose's order of 134: body 0-17, feet 18-23, face 24-91, left hand 92-112, right hand 113-133, in
parts of the picture (0 to 1); NaN where a joint is missing.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from hy_core.errors import HyError, MissingError, UsageError
from hy_core.files import atomic
from hy_core.media import timeline

from hy_avatar import arrays

log = logging.getLogger(__name__)

POINTS = 134
BODY, FEET, FACE = slice(0, 18), slice(18, 24), slice(24, 92)
LEFT_HAND, RIGHT_HAND = slice(92, 113), slice(113, 134)
LEAST_SCORE = 0.3  # below it DWPose calls a joint missing
FORMAT, VERSION = "hy-pose", 1
MAX_POSES = 100_000
"""People times frames of a pose file: more than an hour of one person at 25 frames a second."""
MAX_JSON, MAX_LISTS = 100 << 20, 5_000_000
"""Bytes of a pose file in JSON, and lists in it: a list of 3 bytes takes 64 in memory."""
PADDED = 10_000
"""People times frames that may be empty."""

# COCO-WholeBody's 133 with a neck appended as 133 -> OpenPose's 134 (facts, section 5).
_TARGET = (1, 2, 3, 4, 6, 7, 8, 9, 10, 12, 13, 14, 15, 16, 17)
_SOURCE = (17, 6, 8, 10, 7, 9, 12, 14, 16, 13, 15, 2, 1, 4, 3)


class PoseDetector(Protocol):
    """Anything that finds people's joints in one picture."""

    def detect(self, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return points [N, 133, 2] in pixels and scores [N, 133] for a frame uint8 [H, W, 3] (RGB).

        The order is COCO-WholeBody's; N is 0 when nobody is there.
        """
        ...


@dataclass(frozen=True, eq=False)
class PoseTrack:
    """People through a clip: points [F, N, 134, 2] in parts of the picture, scores [F, N, 134], fps.

    `aspect` is the picture's width over its height: parts of the two sides are not of one length.
    """

    points: np.ndarray
    scores: np.ndarray
    fps: float
    aspect: float

    def __post_init__(self) -> None:
        shape = np.shape(self.points)
        if len(shape) != 4 or shape[2:] != (POINTS, 2) or np.shape(self.scores) != shape[:3]:
            raise UsageError(f"points {shape} and scores {np.shape(self.scores)} are no poses [F, N, 134, 2]")

    def __len__(self) -> int:
        return len(self.points)

    @property
    def people(self) -> int:
        return self.points.shape[1]

    def only(self, *people: int) -> PoseTrack:
        """Return the track of some of the people."""
        return replace(self, points=self.points[:, list(people)], scores=self.scores[:, list(people)])


def to_openpose(points: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Reorder COCO-WholeBody points [N, 133, 2] and scores [N, 133] to OpenPose's 134.

    The neck is the middle of the shoulders, and there only if both score above 0.3.
    """
    neck = points[:, 5:7].mean(1, keepdims=True)
    sure = (scores[:, 5:7] > LEAST_SCORE).all(1, keepdims=True)
    points = np.insert(points, [17], neck, axis=1)
    scores = np.insert(scores, [17], np.where(sure, scores[:, 5:7].min(1, keepdims=True), 0.0), axis=1)
    target, source = list(_TARGET), list(_SOURCE)
    ordered, marks = points.copy(), scores.copy()
    ordered[:, target], marks[:, target] = points[:, source], scores[:, source]
    return ordered, marks


def from_openpose(points: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The reverse of `to_openpose`: points [..., 134, 2] and scores [..., 134] in COCO-WholeBody's order of 133."""
    target, source = list(_TARGET), list(_SOURCE)
    ordered, marks = points.copy(), scores.copy()
    ordered[..., source, :], marks[..., source] = points[..., target, :], scores[..., target]
    return np.delete(ordered, 17, axis=-2), np.delete(marks, 17, axis=-1)


def from_detections(
    found: Sequence[tuple[np.ndarray, np.ndarray]],
    height: int,
    width: int,
    fps: float,
    least_share: float = 0.1,
) -> PoseTrack:
    """Join what a detector found in each frame, see `PoseDetector.detect`, to a track.

    People keep their place from frame to frame (nearest body centres first) and come from left to right. Someone
    seen in less than `least_share` of the frames is dropped; no one at all is an error of the caller's clip.

    Each detection is (points [people, 133, 2] in pixels, scores [people, 133]).
    """
    count = len(found)
    tracks: list[dict[int, tuple[np.ndarray, np.ndarray]]] = []
    for index, (raw, marks) in enumerate(found):
        people, scores = to_openpose(np.asarray(raw, np.float64), np.asarray(marks, np.float64))
        people = people / [width, height]
        people[scores < LEAST_SCORE] = np.nan
        free = [k for k in range(len(people)) if np.isfinite(people[k, BODY, 0]).any()]
        pairs = sorted(
            (_distance(one[max(one)][0], people[k]), t, k) for t, one in enumerate(tracks) for k in free
        )
        taken: set[int] = set()
        for distance, t, k in pairs:
            if distance < 0.5 and k in free and t not in taken:
                tracks[t][index] = (people[k], scores[k])
                taken.add(t)
                free.remove(k)
        tracks += [{index: (people[k], scores[k])} for k in free]
    kept = [one for one in tracks if len(one) >= max(1, least_share * count)]
    kept.sort(key=lambda one: float(np.nanmean(one[min(one)][0][BODY, 0])))
    points = np.full((count, len(kept), POINTS, 2), np.nan)
    sure = np.zeros((count, len(kept), POINTS))
    for person, one in enumerate(kept):
        for index, (place, score) in one.items():
            points[index, person], sure[index, person] = place, score
    return PoseTrack(points, sure, fps, width / height)


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    """Return the mean distance of the body joints that both have, in parts of the picture."""
    away = np.linalg.norm(one[BODY] - other[BODY], axis=1)
    return float(np.nanmean(away)) if np.isfinite(away).any() else math.inf


def extract(
    frames: Iterable[np.ndarray], detector: PoseDetector, fps: float, name: str = "the clip"
) -> PoseTrack:
    """Find the people of a clip, frames uint8 [H, W, 3]; `HyError` when there is nobody in it."""
    found, size = [], (1, 1)
    for frame in frames:
        size = frame.shape[:2]
        found.append(detector.detect(frame))
    if not found:
        raise HyError(f"{name} has no frames")
    track = from_detections(found, *size, fps)
    if not track.people:
        raise HyError(f"no person was found in {name}", "a pose is taken from a video that shows a body")
    alone = int(sum(not np.isfinite(frame).any() for frame in track.points))
    if alone:
        log.warning("nobody is seen in %d of %d frames of %s", alone, len(track), name)
    return track


def is_file(path: Path) -> bool:
    """Whether a file holds poses, by its name; anything else is taken for a video."""
    return path.suffix.lower() in (".json", ".npz")


def seconds(path: Path) -> float:
    """Return the length of a pose file or a video in seconds."""
    if is_file(path):
        track = load(path)
        return len(track) / track.fps
    return timeline.measure(path).duration


def load(
    path: Path | str, detector: PoseDetector | None = None, until: float = math.inf, more: int = 0
) -> PoseTrack:
    """Read a pose file (.json, .npz), or detect the people of a video at its own frame rate.

    A video is read up to `until` seconds and `more` frames further. MissingError without the file; HyError for one that
    is damaged, too large, or shows nobody.
    """
    path = Path(path)
    if path.suffix.lower() == ".json":
        return _read_json(path)
    if path.suffix.lower() == ".npz":
        return _read_npz(path)
    if detector is None:
        raise UsageError(f"{path} is no pose file (.json, .npz)", "a video needs a pose detector")
    fps = timeline.even_rate(path)
    count = None if math.isinf(until) else math.ceil(until * fps) + 1 + more
    return extract(timeline.frames_at(path, count=count), detector, fps, str(path))


def save(path: Path | str, track: PoseTrack) -> None:
    """Write a pose file, .json (for other programs) or .npz (small), atomically."""
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in (".json", ".npz"):
        raise UsageError(f"{path}: pose files are .json or .npz")
    if kind == ".npz":
        points, scores = (values.astype(np.float32) for values in (track.points, track.scores))
        numbers = {"version": VERSION, "fps": track.fps, "aspect": track.aspect}
        arrays.write(path, format=FORMAT, points=points, scores=scores, **numbers)
        return
    with atomic(path) as temporary:
        frames = [
            [_person(points, scores) for points, scores in zip(frame, marks, strict=True)]
            for frame, marks in zip(track.points, track.scores, strict=True)
        ]
        head = {"format": FORMAT, "version": VERSION, "fps": track.fps, "aspect": track.aspect}
        Path(temporary).write_text(json.dumps({**head, "frames": frames}), encoding="utf-8")


def _person(points: np.ndarray, scores: np.ndarray) -> list[list[float] | None]:
    return [
        [round(float(x), 5), round(float(y), 5), round(float(score), 3)] if math.isfinite(x + y) else None
        for (x, y), score in zip(points, scores, strict=True)
    ]


def _read_json(path: Path) -> PoseTrack:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_JSON + 1)
        if len(data) > MAX_JSON or data.count(b"[") + 4 * data.count(b"{") > MAX_LISTS:
            raise HyError(f"{path} is too large for a pose file in JSON", "write it as .npz")
        table: Any = json.loads(data)
    except FileNotFoundError as problem:
        raise MissingError(f"no such file: {path}") from problem
    except (OSError, ValueError, RecursionError) as problem:
        raise HyError(f"{path} cannot be read as JSON ({str(problem)[:80]})") from problem
    if not isinstance(table, dict) or table.get("format") != FORMAT or table.get("version") != VERSION:
        raise HyError(f"{path} is no pose file of version {VERSION}", 'it needs "format": "hy-pose"')
    try:
        frames = table["frames"]
        counts = [len(frame) for frame in frames]
        people = max(counts, default=0)
        # A table that isn't rectangular is padded: a small file must not become a large array.
        if people * len(frames) > min(max(2 * sum(counts), PADDED), MAX_POSES):
            raise HyError(f"{path} is too large: {people} people in {len(frames)} frames")
        points = np.full((len(frames), people, POINTS, 2), np.nan)
        scores = np.zeros((len(frames), people, POINTS))
        for f, frame in enumerate(frames):
            for n, person in enumerate(frame):
                if not _is_person(person):
                    raise ValueError(f"frame {f} has a person without {POINTS} points")
                for k, point in enumerate(person):
                    if point is not None:
                        x, y, scores[f, n, k] = (float(value) for value in point)
                        points[f, n, k] = x, y
        return _checked(path, points, scores, float(table["fps"]), float(table["aspect"]))
    except (KeyError, TypeError, ValueError, OverflowError) as problem:
        raise HyError(f"{path} is a damaged pose file ({str(problem)[:80]})") from problem


def _is_person(value: Any) -> bool:
    return isinstance(value, list) and len(value) == POINTS


def _read_npz(path: Path) -> PoseTrack:
    found = arrays.read(path, ("format", "version", "points", "scores", "fps", "aspect"))
    if str(found["format"]) != FORMAT or arrays.scalar(found, "version", path) != VERSION:
        raise HyError(f"{path} is no pose file of version {VERSION}")
    points, scores = found["points"], found["scores"]
    if points.dtype.kind != "f" or scores.dtype.kind != "f":
        raise HyError(f"{path} is damaged: its points are {points.dtype}, its scores {scores.dtype}")
    fps, aspect = (arrays.scalar(found, name, path) for name in ("fps", "aspect"))
    return _checked(path, points.astype(np.float64), scores.astype(np.float64), fps, aspect)


def _checked(path: Path, points: np.ndarray, scores: np.ndarray, fps: float, aspect: float) -> PoseTrack:
    """Return a track; HyError for a rate or aspect out of range, for a wrong shape and for no person at all."""
    if not (0 < fps <= 1000 and 0.01 <= aspect <= 100):
        raise HyError(f"{path} has {fps} frames a second and an aspect of {aspect}")
    points[~((points > -100) & (points < 100))] = np.nan  # infinities too
    try:
        track = PoseTrack(points, np.nan_to_num(scores, copy=False), fps, aspect)
    except UsageError as problem:
        raise HyError(f"{path} is damaged: {problem.message}") from None
    if not len(track) or not np.isfinite(track.points[..., BODY, :]).any():
        raise HyError(f"{path} holds no person")
    return track
