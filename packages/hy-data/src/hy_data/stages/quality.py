"""Technical quality: sharpness, PIQE and exposure of a few frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from hy_core.data import JSON, ClipRecord, Score, Stage
from hy_core.options import option

from hy_data import pictures
from hy_data.frames import ClipFrames, FrameStage, View

HEIGHT = 360
"""Pixels at which sharpness is comparable; lower pictures are measured as they are."""


class Quality(FrameStage):
    """Measure a few frames; blur, compression and upscaling lower `sharpness` and raise `piqe`."""

    name = "quality"
    scores = (
        Score("sharpness", "median variance of the Laplacian at 360 pixels of height", "high"),
        Score("sharpness_least", "least of it", "high"),
        Score("piqe", "mean PIQE, 0 to 100", "low"),
        Score("brightness", "mean brightness, 0 to 1"),
        Score("underexposed", "mean share of black pixels", "low"),
        Score("overexposed", "mean share of white pixels", "low"),
    )

    @dataclass(frozen=True)
    class Options(Stage.Options):
        """What is looked at."""

        frames: int = option(8, help="Frames that are examined.", minimum=1, maximum=64)
        piqe_frames: int = option(2, help="Of these, frames whose PIQE is computed.", minimum=1, maximum=64)

    options: Options

    def views(self) -> tuple[View, ...]:
        return (View(HEIGHT, count=self.options.frames),)

    def measure(self, record: ClipRecord, frames: ClipFrames) -> tuple[Mapping[str, JSON | np.ndarray], None]:
        grays = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in frames[self.views()[0]]]
        sharp = [pictures.sharpness(gray) for gray in grays]
        count = min(self.options.piqe_frames, len(grays))
        chosen = np.linspace(0, len(grays) - 1, 2 * count + 1).round().astype(int)[1::2]
        brightness, dark, bright = np.mean([pictures.exposure(gray) for gray in grays], 0)
        return {
            "sharpness": round(float(np.median(sharp)), 3),
            "sharpness_least": round(min(sharp), 3),
            "piqe": round(float(np.mean([pictures.piqe(grays[one]) for one in chosen])), 3),
            "brightness": round(float(brightness), 5),
            "underexposed": round(float(dark), 5),
            "overexposed": round(float(bright), 5),
        }, None
