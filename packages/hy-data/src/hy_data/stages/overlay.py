"""Logos and watermarks: edges that stay in place while the rest of the picture moves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from hy_core.data import JSON, ClipRecord, Score, Stage
from hy_core.options import option

from hy_data.boxes import areas
from hy_data.frames import ClipFrames, FrameStage, View
from hy_data.still_edges import find_still_edges

_LEAST = 3  # frames that tell what stays


class Overlay(FrameStage):
    """Find logos and watermarks by edges that stay in all frames of a moving picture.

    Finds `overlay` ("none", "logo", or "unknown" where the camera is static, so that the whole scene stays),
    `overlay_area` (share of the picture under logos' boxes), and `overlay_box` of the largest one (left, top, right,
    bottom in shares of the picture). Where it is unknown, the area is that of text that stays in place, if the stage
    `text` ran before, else null.
    """

    name = "overlay"
    scores = (Score("overlay_area", "share of the picture under logos and watermarks", "low"),)

    @dataclass(frozen=True)
    class Options(Stage.Options):
        """What is looked at."""

        frames: int = option(16, help="Frames that are compared.", minimum=_LEAST, maximum=64)
        height: int = option(
            256, help="Height in pixels at which they are compared.", minimum=64, maximum=1080
        )

    def views(self) -> tuple[View, ...]:
        return (View(self.options.height, count=self.options.frames, gray=True),)

    def measure(self, record: ClipRecord, frames: ClipFrames) -> tuple[Mapping[str, JSON | np.ndarray], None]:
        pictures = frames[self.views()[0]]
        still = find_still_edges(pictures) if len(pictures) >= _LEAST else None
        if still is None or still.is_static:
            return {"overlay": "unknown", "overlay_area": record.results.get("text_lasting")}, None
        results: dict[str, JSON | np.ndarray] = {
            "overlay": "logo" if len(still.boxes) else "none",
            "overlay_area": round(float(areas(still.boxes).sum()), 5),
        }
        if len(still.boxes):
            results["overlay_box"] = [round(float(side), 4) for side in still.boxes[0]]
        return results, None
