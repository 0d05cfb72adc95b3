"""The pose of the person of a clip."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hy_core.data import ClipRecord
from hy_core.errors import UsageError
from hy_core.imports import import_target
from hy_core.options import option

from hy_avatar import pose, pose_motion
from hy_avatar.stages.stage_cache import CachingStage
from hy_avatar.video_segment import VideoSegment

DETECTORS = {"mediapipe": "hy_avatar.pose_detectors:MediaPipePose"}


class PersonPose(CachingStage):
    """Find the person's joints in each frame, filled up and calmed as in a run. The file is one for `--avatar-pose`."""

    name = "person-pose"

    @dataclass(frozen=True)
    class Options:
        """What finds them, and how often it must."""

        cache: Path = option(help="Folder for the poses.")
        detector: str = option("mediapipe", help="Pose detector, by name or as module:attribute.")
        dwpose: Path | None = option(
            None, help="Folder with DWPose's ONNX files, in place of the detector.", metavar="DIR"
        )
        least: float = option(
            0.9, help="Smallest share of frames in which somebody is seen.", minimum=0, maximum=1
        )
        most: int = option(1, help="Most people; the record's pose is that of all of them.", minimum=1)

    def found(self, record: ClipRecord) -> tuple[dict[str, Any], str | None]:
        """Find `people`, `pose_seen` (a share of frames) and `pose`, a pose file."""
        import numpy as np

        segment, options, path = VideoSegment.of(record), self.options, self.place(record)
        if self.kept(record, "pose", path):
            return {}, None
        if options.dwpose is not None:
            from hy_avatar.driving import pose_detector

            finder = pose_detector(options.dwpose)
        else:
            finder = import_target(options.detector, "detector", DETECTORS)()
        if not hasattr(finder, "detect"):
            raise UsageError(f"{options.detector} is no pose detector")
        track = pose.extract(segment.frames(), finder, segment.fps, str(segment.path))
        share = float(np.isfinite(track.points).any((1, 2, 3)).mean())
        fields: dict[str, Any] = {"people": track.people, "pose_seen": round(share, 4)}
        if track.people > options.most:
            return fields, f"{track.people} people"
        if share < options.least:
            return fields, f"somebody is seen in {share:.0%} of the frames"
        pose.save(path, pose_motion.smooth(pose_motion.fill(track)))
        return fields | {"pose": str(path)}, None
