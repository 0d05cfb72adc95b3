"""Cut a clip to one talking head, and find where its face is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from hy_core.data import ClipRecord
from hy_core.errors import UsageError
from hy_core.options import option

from hy_avatar import faces
from hy_avatar.faces import FaceDetector, FaceTrack
from hy_avatar.stages import stage_cache
from hy_avatar.stages.stage_cache import CachingStage
from hy_avatar.video_segment import VideoSegment

CUT = ("faces", "points", "mask", "pose")
"""Fields whose files are in parts of the crop."""


class TalkingHead(CachingStage):
    """Follow the face through the clip, and find a square crop that holds it all the time.

    Dropped are clips with no face, with several (unless the largest is wanted), with one that is too small, that leaves
    the picture, or that moves farther than a square of the picture's shorter side.
    """

    name = "talking-head"

    @dataclass(frozen=True)
    class Options:
        """How the crop is laid, and what makes a clip unfit."""

        cache: Path = option(help="Folder for the boxes.")
        detector: str = option("mediapipe", help="Face detector, by name or as module:attribute.")
        area: float = option(2.0, help="Side of the crop, in that of the face.", minimum=1, maximum=100)
        least: float = option(64.0, help="Smallest face, in pixels a side.", minimum=1)
        away: float = option(
            0.02, help="Largest share of frames in which the face is out of sight.", minimum=0, maximum=1
        )
        several: Literal["reject", "largest"] = option(
            "reject", help="What becomes of clips with several faces."
        )
        most: float = option(60.0, help="Longest clip in seconds; one crop must do for all of it.", minimum=0)

    @cached_property
    def finder(self) -> FaceDetector:
        """The detector."""
        return faces.detector(self.options.detector)

    def found(self, record: ClipRecord) -> tuple[dict[str, Any], str | None]:
        """Find `crop`, `face_size` (pixels, the mean side), `face_away` (share of frames), `fps` and `faces`, a file.

        A record that has a crop stays as it is.
        """
        if record.crop is not None:
            return {}, None
        if early := [name for name in CUT if name in record.results]:
            raise UsageError(
                f"{self.name} comes after the stage that found {early[0]!r}, which belongs to the whole picture",
                f"put {self.name} first",
            )
        segment, options = VideoSegment.of(record), self.options
        fps, size = segment.fps, (1, 1)
        found: list[np.ndarray] = []
        for frame in segment.frames():
            if len(found) > options.most * fps:
                return {}, f"longer than {options.most:g} s; split it first"
            size = frame.shape[:2]
            found.append(self.finder.detect(frame))
        tracks = faces.link(found)
        if not tracks:
            return {}, "no face"
        if len(tracks) > 1 and options.several == "reject":
            return {}, f"{len(tracks)} faces"
        track = faces.largest(tracks)
        height, width = size
        sides = (track.boxes[:, 2:] - track.boxes[:, :2]) * [width, height]
        side = float(np.median(sides.max(1)))
        away = 1 - float(track.present().mean())
        fields: dict[str, Any] = {
            "face_size": round(side, 1),
            "face_away": round(away, 4),
            "fps": round(fps, 4),
        }
        if side < options.least:
            return fields, f"a face of {side:.0f} pixels, below {options.least:g}"
        if away > options.away:
            return fields, f"the face is out of sight in {away:.0%} of the frames"
        crop = square(track.boxes[track.seen] * ([width, height] * 2), side * options.area, height, width)
        if crop is None:
            return fields, "the face moves too far for one crop"
        fields["crop"] = list(crop)
        path = self.place(replace(record, crop=crop))
        save_track(path, inside(track, crop, height, width), fps)
        return fields | {"faces": str(path)}, None


def square(boxes: np.ndarray, side: float, height: int, width: int) -> tuple[int, int, int, int] | None:
    """A square in pixels that holds all boxes [F, 4], of `side` if it may, inside of the picture; None if none does."""
    low, high = boxes[:, :2].min(0), boxes[:, 2:].max(0)
    edge = min(max(side, float((high - low).max())), height, width)
    edge = int(edge) if edge == int(edge) else min(int(edge) + 1, height, width)
    if (high - low).max() > edge:
        return None
    middle = (low + high) / 2
    left, top = (
        int(np.clip(round(centre - edge / 2), 0, most - edge))
        for centre, most in zip(middle, (width, height), strict=True)
    )
    return left, top, left + edge, top + edge


def inside(track: FaceTrack, crop: tuple[int, int, int, int], height: int, width: int) -> FaceTrack:
    """A track in parts of the picture as one in parts of a crop."""
    left, top, right, bottom = crop
    boxes = track.boxes * ([width, height] * 2) - [left, top, left, top]
    return FaceTrack(np.clip(boxes / ([right - left, bottom - top] * 2), 0, 1), track.seen)


def save_track(path: Path, track: FaceTrack, fps: float) -> None:
    """Write the boxes of a face as NPZ."""
    stage_cache.write(path, boxes=track.boxes.astype(np.float32), seen=track.seen, fps=fps)


def load_track(path: Path | str) -> tuple[FaceTrack, float]:
    """Read what `save_track` wrote: the track, and frames a second."""
    held = stage_cache.read(path, "boxes", "seen", "fps")
    return FaceTrack(held["boxes"].astype(np.float64), held["seen"].astype(bool)), float(held["fps"])
