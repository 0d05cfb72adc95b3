"""The points of a face, and its mask, frame by frame."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from hy_core.data import ClipRecord
from hy_core.errors import UsageError
from hy_core.imports import import_target
from hy_core.options import option

from hy_avatar.stages import stage_cache
from hy_avatar.stages.stage_cache import CachingStage
from hy_avatar.video_segment import VideoSegment

LANDMARKERS = {"mediapipe": "hy_avatar.faces_mediapipe:MediaPipeLandmarks"}
_TOGETHER = 32  # frames that are held
_MOST_MASK = 1 << 30  # places of all of a clip's masks


class FacePoints(CachingStage):
    """Find the 68 points of the face (iBUG's order): expressions, lips and outlined masks come from them."""

    name = "face-points"

    @dataclass(frozen=True)
    class Options:
        """What finds them, and how often it must."""

        cache: Path = option(help="Folder for the points.")
        landmarker: str = option("mediapipe", help="What finds points, by name or as module:attribute.")
        least: float = option(
            0.9, help="Smallest share of frames in which they are found.", minimum=0, maximum=1
        )

    def found(self, record: ClipRecord) -> tuple[dict[str, Any], str | None]:
        """Find `points_seen`, a share of frames, and `points`, a file with [F, 68, 2] in parts of the picture."""
        segment, path = VideoSegment.of(record), self.place(record)
        if self.kept(record, "points", path):
            return {}, None
        # One that follows a face remembers it: each clip has a new one.
        finder = plugged_landmarker(self.options.landmarker)
        frames, parts = segment.frames(), []
        while batch := list(itertools.islice(frames, _TOGETHER)):
            shown = np.stack(batch)
            parts.append(finder.landmarks(shown) / [shown.shape[2], shown.shape[1]])
        points = np.concatenate(parts)
        if points.shape[1:] != (68, 2):
            raise UsageError(
                f"{self.options.landmarker} finds {points.shape[1]} points of a face, 68 are wanted"
            )
        share = float(np.isfinite(points).all((1, 2)).mean())
        fields: dict[str, Any] = {"points_seen": round(share, 4)}
        if share == 0 or share < self.options.least:
            return fields, f"points of a face in {share:.0%} of the frames"
        stage_cache.write(path, points=points.astype(np.float32), fps=segment.fps)
        return fields | {"points": str(path)}, None


def plugged_landmarker(target: str) -> Any:
    """A new landmarker, by its name or "module:attribute"."""
    return import_target(target, "landmarker", LANDMARKERS)()


def load_points(path: Path | str) -> tuple[np.ndarray, float]:
    """Points [F, 68, 2] in parts of the picture, NaN where there are none, and frames a second."""
    held = stage_cache.read(path, "points", "fps")
    return held["points"].astype(np.float64), float(held["fps"])


class FaceMask(CachingStage):
    """Draw the mask of the face: where speech and expression may act. The file is one for `--avatar-mask`, too."""

    name = "face-mask"

    @dataclass(frozen=True)
    class Options:
        """Its shape."""

        cache: Path = option(help="Folder for the masks.")
        shape: Literal["box", "ellipse", "outline"] = option(
            "box", help="Box or ellipse from faces, or the outline of the points."
        )
        area: float = option(1.5, help="Its sides, in those of the face.", minimum=0.1, maximum=100)
        size: int = option(256, help="Longest side of the masks, in pixels.", minimum=8, maximum=4096)

    @cached_property
    def wants(self) -> str:
        """The field that it is drawn from."""
        return "points" if self.options.shape == "outline" else "faces"

    def found(self, record: ClipRecord) -> tuple[dict[str, Any], str | None]:
        """Find `mask`, a file with masks [F, h, w] of a frame each."""
        from hy_avatar import masks
        from hy_avatar.stages.heads import load_track

        if self.wants not in record.results:
            before = "face-points" if self.wants == "points" else "talking-head"
            raise UsageError(f"{self.name} needs the record's {self.wants!r}", f"run {before} before it")
        options, path = self.options, self.place(record)
        if self.kept(record, "mask", path):
            return {}, None
        first = next(VideoSegment.of(record).frames(count=1))
        scale = min(options.size / max(first.shape[:2]), 1.0)
        height, width = (max(round(side * scale), 1) for side in first.shape[:2])
        if self.wants == "points":
            points, fps = load_points(record.result_file("points"))
            count = len(points)
        else:
            track, fps = load_track(record.result_file("faces"))
            count = len(track.boxes)
        if count * height * width > _MOST_MASK:
            return {}, f"{count} masks of {width}x{height} are too much to hold; split the clip first"
        if self.wants == "points":
            drawn = masks.from_points(points * [width, height], height, width, options.area)
        else:
            drawn = masks.from_track(track, height, width, options.area, options.shape)
        stage_cache.write(path, mask=drawn >= 0.5, fps=fps)
        return {"mask": str(path)}, None


def load_mask(path: Path | str) -> tuple[np.ndarray, float]:
    """Masks bool [F, h, w], and frames a second."""
    held = stage_cache.read(path, "mask", "fps")
    return held["mask"].astype(bool), float(held["fps"])
