"""Does a clip's sound belong to its picture?"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hy_core.data import ClipRecord, Stage
from hy_core.imports import import_target
from hy_core.options import option

from hy_audio.sync import TOLERANCE, score_clip

Scorer = Callable[[Path, tuple[float, float] | None], float]
"""From a file and a span to a score: CLAP, ImageBind or Synchformer, as wrapped by a user who has their weights."""


class Consistency(Stage):
    """Measure how onsets agree with motion (no weights), or what a scorer says, and drop what is too bad.

    Clips in which nothing moves or sounds in events can't be scored and are kept: their `av_score` is null.
    """

    name = "sound-consistency"

    @dataclass(frozen=True)
    class Options:
        """What is too inconsistent."""

        least: float = option(0.0, help="Lowest score; 0 keeps all.")
        tolerance: float = option(
            TOLERANCE, help="Seconds between an onset and its motion.", minimum=0, maximum=2
        )
        scorer: str | None = option(None, help="module:function of (path, span) to use in place of onsets.")

    def found(self, record: ClipRecord) -> tuple[dict[str, Any], str | None]:
        """Find `av_score`, and without a scorer `av_offset`, the seconds by which the sound is late."""
        path, span = record.file, record.span
        fields: dict[str, Any]
        if self.options.scorer:
            score = float(import_target(self.options.scorer, "scorer")(path, span))
            fields = {"av_score": round(score, 4)}
        else:
            seen = score_clip(path, span, self.options.tolerance)
            if seen is None:
                return {}, "no sound stream"
            score = seen.f1 if seen.motions and seen.onsets else math.nan
            fields = {
                "av_score": None if math.isnan(score) else round(score, 4),
                "av_offset": None if math.isnan(seen.offset) else round(seen.offset, 3),
            }
        low = score < self.options.least
        return fields, f"score {score:.2f}, below {self.options.least:g}" if low else None
