"""How the camera moves in a clip: one of the 14 classes of the HunyuanVideo paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from hy_core.data import JSON, ClipRecord, Score, Stage
from hy_core.options import option

from hy_data.camera.classes import UNSURE
from hy_data.camera.classifier import SHIPPED, VIEW, Classifier
from hy_data.frames import ClipFrames, FrameStage, View


class CameraMotion(FrameStage):
    """Tell the camera motion by a forest on features of optical flow.

    Finds `camera_motion` (a class of `hy_data.camera.classes`, or "unsure") and `camera_motion_confidence` (the most
    probable class's probability; 0 for a clip of one frame).
    """

    name = "camera-motion"
    scores = (Score("camera_motion_confidence", "probability of the most probable camera motion", "high"),)

    @dataclass(frozen=True)
    class Options(Stage.Options):
        """How sure an answer must be, and by what."""

        confidence: float = option(0.8, help="Least probability of an answer.", minimum=0, maximum=1)
        forest: Path | None = option(None, help="File of hy data camera train; the shipped one if not given.")

    @cached_property
    def _classifier(self) -> Classifier:
        return Classifier(self.options.forest or SHIPPED)

    def setup(self) -> None:
        """Read the forest."""
        _ = self._classifier

    def views(self) -> tuple[View, ...]:
        return (VIEW,)

    def measure(self, record: ClipRecord, frames: ClipFrames) -> tuple[Mapping[str, JSON | np.ndarray], None]:
        """Classify the gray pictures uint8 [T, H, W] of `VIEW`."""
        pictures = frames[VIEW]
        name, confidence = self._classifier.classify(pictures) if len(pictures) > 1 else (UNSURE, 0.0)
        is_sure = confidence >= self.options.confidence
        return {
            "camera_motion": name if is_sure else UNSURE,
            "camera_motion_confidence": round(confidence, 4),
        }, None
