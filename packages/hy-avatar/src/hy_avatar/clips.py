"""The source `talking-clips`: clips of a manifest that the stages prepared, with the drivers that these found."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from hy_core import media
from hy_core.data import (
    Clip,
    ClipRecord,
    ClipShape,
    SourceSpec,
    check_split,
    fingerprint,
    read_manifest,
    select_split,
)
from hy_core.errors import UsageError
from hy_core.request import Sound
from hy_core.tables import bounded
from hy_core.training import seeded

from hy_avatar import pose
from hy_avatar.faces import FaceTrack
from hy_avatar.stages.heads import load_track
from hy_avatar.stages.points import load_mask, load_points
from hy_avatar.stages.voices import load_speech
from hy_avatar.video_segment import RATE, VideoSegment

CAPTION = "a person talks"
"""Words for a record without any."""


@dataclass(frozen=True, eq=False)
class TalkingClip(Clip):
    """`frames` frames of a record at `rate` a second from frame `start` on, scaled to fill height x width.

    Frames are counted from the beginning of the record's span; `still` is that of the portrait.
    """

    record: ClipRecord
    rate: float
    start: int
    frames: int
    still: int
    height: int
    width: int

    @cached_property
    def segment(self) -> VideoSegment:
        """The part of the file that the record means."""
        return VideoSegment.of(self.record)

    @property
    def fps(self) -> float:
        return self.rate

    def video(self) -> np.ndarray:
        """Return the frames, uint8 [T, H, W, 3]; a file that is too short repeats its last frame."""
        shown = [
            self._fit(frame) for frame in self.segment.frames(self.fps, self.start / self.fps, self.frames)
        ]
        return np.stack(shown + shown[-1:] * (self.frames - len(shown)))

    def _fit(self, frame: np.ndarray) -> np.ndarray:
        from PIL import Image

        from hy_avatar.reference import fit

        return np.array(fit(Image.fromarray(frame), self.width, self.height))  # writable, for torch

    def caption(self, rng: np.random.Generator) -> str:
        """Draw one of the record's captions; `CAPTION` if it has none."""
        captions = self.record.captions or (CAPTION,)
        return captions[int(rng.integers(len(captions)))]

    def sound(self) -> Sound:
        """Return the sound, mono at 16 kHz, as long as the frames; silence where the file has none."""
        count = round(self.frames / self.fps * RATE)
        if not media.probe(self.segment.path).sound:
            return Sound(np.zeros((1, count), np.float32), RATE)
        blocks = self.segment.sound(RATE, self.start / self.fps, self.frames / self.fps)
        samples = np.concatenate([np.zeros(0, np.float32), *blocks])[:count]
        return Sound(np.pad(samples, (0, count - len(samples)))[None], RATE)

    def annotations(self) -> dict[str, Any]:
        """Return what drives the person, as far as the record's files state it; see `hy_avatar.clip_features`.

        Without `points` the lips are taken to be in the lower middle of the face.
        """
        results = self.record.results
        annotated: dict[str, Any] = {"fps": self.fps, "rate": RATE}
        annotated["portrait"] = self._fit(next(self.segment.frames(self.fps, self.still / self.fps, 1)))
        points = None
        if "points" in results:
            from hy_avatar.expression_extract import filled

            found, fps = load_points(self.record.result_file("points"))
            points = self._placed(filled(found)[0][self._at(len(found), fps)])
            annotated["landmarks"] = points[None]
        if "faces" in results:
            track, fps = load_track(self.record.result_file("faces"))
            corners = self._placed(track.boxes[self._at(len(track.boxes), fps)].reshape(-1, 2, 2))
            annotated["faces"] = corners.reshape(1, -1, 4)
        elif points is not None:
            annotated["faces"] = np.concatenate([points.min(1), points.max(1)], -1)[None]
        if points is not None:
            lips = points[:, 48:68]
            annotated["lips"] = np.concatenate([lips.min(1), lips.max(1)], -1)[None]
        elif "faces" in annotated:
            low, high = annotated["faces"][..., :2], annotated["faces"][..., 2:]
            annotated["lips"] = np.concatenate(
                [low + (high - low) * [0.25, 0.6], low + (high - low) * [0.75, 0.9]], -1
            )
        if "mask" in results:
            masks, fps = load_mask(self.record.result_file("mask"))
            annotated["masks"] = self._masks(masks[self._at(len(masks), fps)])[None]
        if "pose" in results:
            annotated |= self._joints(pose.load(self.record.result_file("pose")))
        return annotated | self._speech()

    def _speech(self) -> dict[str, Any]:
        """The features that a stage found, or the sound [1, N]."""
        if "speech" in self.record.results:
            import torch

            from hy_avatar.speech import Span, windowed

            states, samples, encoder = load_speech(self.record.result_file("speech"))
            span = Span(self.frames, self.fps, self.start)
            heard = windowed(torch.from_numpy(states), samples, span)
            return {"heard": heard.numpy()[None], "encoder": encoder}
        return {"speech": self.sound().samples}

    def _joints(self, track: pose.PoseTrack) -> dict[str, np.ndarray]:
        at = self._at(len(track), track.fps)
        points, scores = pose.from_openpose(track.points[at], track.scores[at])
        there = np.isfinite(points).all(-1)
        placed = np.where(there[..., None], self._placed(np.nan_to_num(points)), 0.0)
        return {"joints": placed.swapaxes(0, 1), "visible": np.where(there, scores, 0.0).swapaxes(0, 1)}

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


@dataclass(frozen=True)
class TalkingOptions:
    """The table `[data.sources.talking-clips]`.

    `records` is the manifest that the stages wrote; `fps` is the rate that clips are brought to; `heldout` is the
    share of files that training doesn't see.
    """

    records: str = ""
    fps: float = bounded(25.0, 0.01, 240)
    heldout: float = 0.1


class TalkingClips:
    """Clips of the records of a manifest: `spec.count` windows drawn from them, or one of each with a count of 0.

    The portrait of a clip is a frame outside of it where the record has one. `UsageError` if no record of the split
    has as many frames as are asked for.
    """

    def __init__(self, spec: SourceSpec) -> None:
        self.spec, options = spec, spec.read_options(TalkingOptions)
        if not options.records:
            raise UsageError(f"{spec.label}: no records are given", 'records = "clips.jsonl", of the stages')
        self.path, self.fps = Path(options.records).expanduser(), options.fps
        records = select_split(
            read_manifest(self.path), check_split(spec.split), options.heldout, str(self.path)
        )
        lengths = [self._length(record) for record in records]
        self.records = [
            (one, count) for one, count in zip(records, lengths, strict=True) if count >= spec.frames
        ]
        if not self.records:
            raise UsageError(
                f"{self.path}: none of {len(records)} clips for {spec.split!r} has {spec.frames} frames "
                f"at {self.fps:g} a second",
                "take shorter buckets, or a lower fps",
            )
        self.fingerprint = fingerprint(spec, self.path, *sorted({one.file for one, _ in self.records}))

    def __len__(self) -> int:
        return self.spec.count or len(self.records)

    def __getitem__(self, index: int) -> TalkingClip:
        if not 0 <= index < len(self):
            raise IndexError(index)
        spec = self.spec
        rng = np.random.default_rng(seeded(spec.seed, 5, spec.frames, spec.height, spec.width, index))
        record, count = self.records[int(rng.integers(len(self.records))) if spec.count else index]
        start = int(rng.integers(count - spec.frames + 1))
        still = int(rng.integers(count - spec.frames)) if count > spec.frames else int(rng.integers(count))
        if count > spec.frames and still >= start:
            still += spec.frames
        return TalkingClip(record, self.fps, start, spec.frames, still, spec.height, spec.width)

    def shape(self, index: int) -> ClipShape:
        """Return the shape that the specification asks for; all clips have it."""
        return ClipShape(self.spec.frames, self.spec.height, self.spec.width)

    def _length(self, record: ClipRecord) -> int:
        """How many frames a record has, at the source's rate."""
        return int(self._seconds(record) * self.fps + 0.25)

    def _seconds(self, record: ClipRecord) -> float:
        for name, load in (("faces", load_track), ("points", load_points), ("mask", load_mask)):
            if name in record.results:
                found, fps = load(record.result_file(name))
                return len(found.boxes if isinstance(found, FaceTrack) else found) / fps
        segment = VideoSegment.of(record)
        whole = pose.seconds(segment.path)
        return whole if segment.span is None else min(segment.span[1], whole) - segment.span[0]
