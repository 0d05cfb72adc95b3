"""Sensitive content, which two classifiers must agree on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from hy_core.data import JSON, ClipRecord, Score, Stage
from hy_core.options import option

from hy_data.frames import ClipFrames, FrameStage, View
from hy_data.nudity import NudeNet, OpenNSFW


class Sensitive(FrameStage):
    """Judge a few frames by Open-NSFW and, where that suspects something, by NudeNet.

    Each of the two alone has false alarms on cartoons and colour charts. A frame's score is the lower of both
    probabilities in units of their limits, so from 1 on both are over theirs. Finds `sensitive` (the second highest
    score of the frames, so that one frame alone is no reason; of a single frame, its own) and `nsfw` (the highest
    probability of Open-NSFW). Frames that Open-NSFW gives less than half its limit aren't shown to NudeNet and score 0.
    """

    name = "sensitive"
    scores = (
        Score("sensitive", "both classifiers' agreement on two frames; sensitive from 1 on", "low"),
        Score("nsfw", "highest probability of Open-NSFW", "low"),
    )

    @dataclass(frozen=True)
    class Options(Stage.Options):
        """What is looked at, and the limits."""

        frames: int = option(4, help="Frames that are examined.", minimum=1, maximum=64)
        height: int = option(
            256, help="Height in pixels at which they are examined.", minimum=64, maximum=2160
        )
        nsfw: float = option(0.4, help="Limit of Open-NSFW's probability.", minimum=0.01, maximum=1)
        nudity: float = option(0.6, help="Limit of NudeNet's score.", minimum=0.01, maximum=1)

    @cached_property
    def _models(self) -> tuple[OpenNSFW, NudeNet]:
        return OpenNSFW(), NudeNet()

    def setup(self) -> None:
        """Load both models; `MissingError` if one isn't installed."""
        _ = self._models

    def views(self) -> tuple[View, ...]:
        return (View(self.options.height, count=self.options.frames),)

    def measure(self, record: ClipRecord, frames: ClipFrames) -> tuple[Mapping[str, JSON | np.ndarray], None]:
        pictures = frames[self.views()[0]]
        classifier, detector = self._models
        chances = classifier.score(pictures)
        scores = [
            self._agreement(float(one), detector, picture)
            for one, picture in zip(chances, pictures, strict=True)
        ]
        ordered = sorted(scores, reverse=True)
        return {
            "sensitive": round(ordered[min(1, len(ordered) - 1)], 4),
            "nsfw": round(float(chances.max()), 4),
        }, None

    def _agreement(self, chance: float, detector: NudeNet, picture: np.ndarray) -> float:
        share = chance / self.options.nsfw
        return min(share, detector.score(picture) / self.options.nudity) if share >= 0.5 else 0.0
