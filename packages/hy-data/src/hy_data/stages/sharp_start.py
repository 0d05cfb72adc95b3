"""Move a clip's start to a sharp frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from hy_core.data import JSON, ClipRecord, Score, Stage
from hy_core.media import timeline
from hy_core.options import option

from hy_data.frames import ClipFrames, View
from hy_data.pictures import sharpness
from hy_data.stills import is_still

_VIEW = View(360, gray=True)


class SharpStart(Stage):
    """Start the clip at the first frame that is nearly as sharp as the sharpest one within a limit.

    Sharpness is the variance of the Laplacian at 360 pixels of height. Only the frames up to the limit are decoded.
    A picture file stays as it is. Changes `span` and what follows from it, `duration` and `frames`.
    """

    name = "sharp-start"
    scores = (
        Score("start_sharpness", "variance of the Laplacian of the first frame", "high"),
        Score("start_moved", "how far the start was moved", "low", "s"),
    )

    @dataclass(frozen=True)
    class Options(Stage.Options):
        """How far a start may move."""

        limit: float = option(0.5, help="Seconds that the start may move.", minimum=0, maximum=60)
        share: float = option(0.2, help="Part of the clip that the start may move.", minimum=0, maximum=1)
        near: float = option(0.8, help="Sharpness that is enough, of the sharpest.", minimum=0, maximum=1)

    options: Options

    def found(self, record: ClipRecord) -> tuple[Mapping[str, JSON | np.ndarray], None]:
        if is_still(record.file):
            return {}, None
        start, stop = record.span or (0.0, timeline.measure(record.file).duration)
        limit = min(self.options.limit, self.options.share * (stop - start))
        first = ClipFrames(replace(record, span=(start, min(start + max(limit, 0.001), stop))), [_VIEW])
        sharp = np.array([sharpness(image) for image in first[_VIEW]])
        chosen = int(np.argmax(sharp >= self.options.near * sharp.max()))
        results: dict[str, JSON | np.ndarray] = {"start_sharpness": round(float(sharp[chosen]), 3)}
        moved = max(float(first.times(_VIEW)[chosen]), 0.0) if chosen else 0.0
        if moved:
            results |= {"span": [start + moved, stop], "duration": stop - start - moved}
            if isinstance(frames := record.results.get("frames"), int):
                results["frames"] = frames - chosen
        return {**results, "start_moved": round(moved, 6)}, None
