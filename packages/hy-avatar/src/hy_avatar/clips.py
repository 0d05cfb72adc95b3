"""Clips of one's own for training: records that the stages have prepared, with the drivers that these have kept.

`TalkingClips` is a source as `hy train` takes them (`[data] source = "talking-clips"`); it imports no hy-data.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from hy_core import media
from hy_core.errors import HyError, MissingError, UsageError

from hy_avatar import pose
from hy_avatar.faces import FaceTrack
from hy_avatar.stages.heads import load_track
from hy_avatar.stages.points import load_mask, load_points
from hy_avatar.stages.voices import load_speech
from hy_avatar.video_segment import RATE, VideoSegment

CAPTION = "a person talks"
"""Words for a record without any."""


@dataclass(frozen=True, eq=False)
class TalkingClip:
    """`frames` frames of a record at `fps` from frame `start` on, scaled to fill height x width.

    Frames are counted from the beginning of the record's span; `still` is that of the portrait.
    """

    record: Mapping[str, Any]
    home: Path
    fps: float
    start: int
    frames: int
    still: int
    height: int
    width: int

    @cached_property
    def segment(self) -> VideoSegment:
        """Where it is."""
        return VideoSegment.of(self.record, self.home)

    def pixels(self) -> np.ndarray:
        """Return uint8 [T, H, W, 3]; what a file lacks at its end is its last frame."""
        shown = [
            self._fit(frame) for frame in self.segment.frames(self.fps, self.start / self.fps, self.frames)
        ]
        return np.stack(shown + shown[-1:] * (self.frames - len(shown)))

    def _fit(self, frame: np.ndarray) -> np.ndarray:
        from PIL import Image

        from hy_avatar.reference import fit

        return np.array(fit(Image.fromarray(frame), self.width, self.height))  # writable, for torch

    def ground(self) -> np.ndarray:
        """Return the background [H, W, 3] as far as the clip tells: the median of its frames."""
        return np.median(self.pixels(), axis=0)

    def caption(self, rng: np.random.Generator) -> str:
        """Draw one of the record's `captions`, else its `caption`, else plain words."""
        words = self.record.get("captions") or self.record.get("caption") or CAPTION
        return words if isinstance(words, str) else str(words[int(rng.integers(len(words)))])

    def truth(self) -> dict[str, Any]:
        """Return what drives it, as far as the record's files tell (see `hy_avatar.clip_features`): one person.

        Without `points` the lips are taken to be in the lower middle of the face.
        """
        record = self.record
        told: dict[str, Any] = {"fps": self.fps, "rate": RATE}
        told["portrait"] = self._fit(next(self.segment.frames(self.fps, self.still / self.fps, 1)))
        points = None
        if "points" in record:
            from hy_avatar.expression_extract import filled

            found, fps = load_points(self._file("points"))
            points = self._placed(filled(found)[0][self._at(len(found), fps)])
            told["landmarks"] = points[None]
        if "faces" in record:
            track, fps = load_track(self._file("faces"))
            corners = self._placed(track.boxes[self._at(len(track.boxes), fps)].reshape(-1, 2, 2))
            told["faces"] = corners.reshape(1, -1, 4)
        elif points is not None:
            told["faces"] = np.concatenate([points.min(1), points.max(1)], -1)[None]
        if points is not None:
            lips = points[:, 48:68]
            told["lips"] = np.concatenate([lips.min(1), lips.max(1)], -1)[None]
        elif "faces" in told:
            low, high = told["faces"][..., :2], told["faces"][..., 2:]
            told["lips"] = np.concatenate(
                [low + (high - low) * [0.25, 0.6], low + (high - low) * [0.75, 0.9]], -1
            )
        if "mask" in record:
            masks, fps = load_mask(self._file("mask"))
            told["masks"] = self._masks(masks[self._at(len(masks), fps)])[None]
        if "pose" in record:
            told |= self._joints(pose.load(self._file("pose")))
        return told | self._speech()

    def _speech(self) -> dict[str, Any]:
        """The features that were kept, or the sound [1, N]; silence where the file has none."""
        if "speech" in self.record:
            import torch

            from hy_avatar.speech import Span, windowed

            states, samples, encoder = load_speech(self._file("speech"))
            span = Span(self.frames, self.fps, self.start)
            heard = windowed(torch.from_numpy(states), samples, span)
            return {"heard": heard.numpy()[None], "encoder": encoder}
        count = round(self.frames / self.fps * RATE)
        if not media.probe(self.segment.path).sound:
            return {"speech": np.zeros((1, count), np.float32)}
        blocks = self.segment.sound(RATE, self.start / self.fps, self.frames / self.fps)
        sound = np.concatenate([np.zeros(0, np.float32), *blocks])[:count]
        return {"speech": np.pad(sound, (0, count - len(sound)))[None]}

    def _joints(self, track: pose.PoseTrack) -> dict[str, np.ndarray]:
        at = self._at(len(track), track.fps)
        points, scores = pose.from_openpose(track.points[at], track.scores[at])
        there = np.isfinite(points).all(-1)
        placed = np.where(there[..., None], self._placed(np.nan_to_num(points)), 0.0)
        return {"joints": placed.swapaxes(0, 1), "visible": np.where(there, scores, 0.0).swapaxes(0, 1)}

    def _file(self, name: str) -> Path:
        return located(self.record[name], self.home)

    def _at(self, count: int, fps: float) -> np.ndarray:
        """Which of `count` values at `fps` each frame has: those of the frame that is shown then."""
        times = (self.start + np.arange(self.frames)) / self.fps
        return np.clip((times * fps + 0.25).astype(int), 0, count - 1)

    @cached_property
    def _seen(self) -> tuple[float, float]:
        """Which parts of the record's width and height the clip shows, about the middle."""
        if crop := self.segment.crop:
            aspect = (crop[2] - crop[0]) / (crop[3] - crop[1])
        else:
            high, wide = next(self.segment.frames(count=1)).shape[:2]
            aspect = wide / high
        wanted = self.width / self.height
        return min(wanted / aspect, 1.0), min(aspect / wanted, 1.0)

    def _placed(self, points: np.ndarray) -> np.ndarray:
        """Points [..., 2] in parts of the record's picture in pixels of the clip's."""
        return ((points - 0.5) / self._seen + 0.5) * [self.width, self.height]

    def _masks(self, masks: np.ndarray) -> np.ndarray:
        """Masks [T, h, w] of the record's picture as float32 of what the clip shows of it."""
        height, width = masks.shape[1:]
        cuts = [
            slice(round(side * (1 - part) / 2), max(round(side * (1 + part) / 2), 1))
            for side, part in zip((width, height), self._seen, strict=True)
        ]
        return masks[:, cuts[1], cuts[0]].astype(np.float32)


class TalkingClips:
    """Clips of the records in a JSONL file; a source as `hy_world.clips.Source` describes it.

    `records` is the file; paths in it that aren't absolute are beside it, or else from where one stands. `fps` is the
    rate that clips are brought to, `heldout` the share of files that no training sees. Rejected records are left out.
    """

    def __init__(self, records: str = "", fps: float = 25.0, heldout: float = 0.1) -> None:
        if not records:
            raise UsageError(
                "[data.sources.talking-clips]: no records are given", 'records = "clips.jsonl", of the stages'
            )
        if not 0 < fps <= 240 or not 0 <= heldout < 1:
            raise UsageError(
                f"[data.sources.talking-clips]: fps = {fps} or heldout = {heldout} is out of range"
            )
        self.path, self.fps, self.heldout = Path(records), float(fps), heldout
        self.home = self.path.resolve().parent
        self.records = read_records(self.path)
        self._lengths: dict[int, int] = {}

    def split(self, record: Mapping[str, Any]) -> str:
        """Which split a record belongs to: all of a file to one, by a hash of its name."""
        digest = hashlib.sha256(Path(str(record["path"])).name.encode()).digest()
        return "heldout" if int.from_bytes(digest[:4]) / 2**32 < self.heldout else "train"

    def length(self, index: int) -> int:
        """How many frames a record has, at the source's rate."""
        if index not in self._lengths:
            self._lengths[index] = int(self._seconds(self.records[index]) * self.fps + 0.25)
        return self._lengths[index]

    def _seconds(self, record: Mapping[str, Any]) -> float:
        for name, load in (("faces", load_track), ("points", load_points), ("mask", load_mask)):
            if name in record:
                found, fps = load(located(record[name], self.home))
                return len(found.boxes if isinstance(found, FaceTrack) else found) / fps
        segment = VideoSegment.of(record, self.home)
        whole = pose.seconds(segment.path)
        return whole if segment.span is None else min(segment.span[1], whole) - segment.span[0]

    def clip(
        self,
        rng: np.random.Generator,
        split: str,
        frames: int,
        height: int,
        width: int,
        things: int | None = None,
    ) -> TalkingClip:
        """Draw a part of a record that is long enough; its portrait is a frame outside of it where there is one.

        `UsageError` if no record of the split has so many frames, or several people are wanted.
        """
        if things not in (None, 0, 1):
            raise UsageError(
                f"talking-clips shows one person, not {things}", "leave objects out of the bucket"
            )
        ours = [index for index, one in enumerate(self.records) if self.split(one) == split]
        fit = [index for index in ours if self.length(index) >= frames]
        if not fit:
            hint = "take shorter buckets, or a lower fps" if ours else "more files, or another heldout"
            raise UsageError(
                f"{self.path}: none of {len(ours)} clips for {split!r} has {frames} frames at {self.fps:g} a second",
                hint,
            )
        index = fit[int(rng.integers(len(fit)))]
        record, count = self.records[index], self.length(index)
        start = int(rng.integers(count - frames + 1))
        still = int(rng.integers(count - frames)) if count > frames else int(rng.integers(count))
        if count > frames and still >= start:
            still += frames
        return TalkingClip(record, self._home(record), self.fps, start, frames, still, height, width)

    def _home(self, record: Mapping[str, Any]) -> Path:
        return self.home if (self.home / record["path"]).exists() else Path()


def located(path: str | Path, home: Path) -> Path:
    """A path of a record: beside its file, or else as it is."""
    return home / path if (home / path).exists() else Path(path)


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a JSONL file that aren't rejected; `HyError` in one line, with the number of the file's line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as problem:
        raise MissingError(f"no such file: {path}") from problem
    except (OSError, UnicodeDecodeError) as problem:
        raise HyError(f"{path} cannot be read ({str(problem)[:80]})") from problem
    records, rejected = [], 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError("no object")
            segment = VideoSegment.of(record)
        except (ValueError, UsageError) as problem:
            raise HyError(f"{path}, line {number}: {str(problem)[:120]}") from None
        if record.get("rejected"):
            rejected += 1
            continue
        if not (path.resolve().parent / segment.path).exists() and not segment.path.exists():
            raise MissingError(f"{path}, line {number}: no such file: {segment.path}")
        records.append(record)
    if not records:
        raise HyError(f"{path} has no clips" + (f": all {rejected} are rejected" if rejected else ""))
    return records
