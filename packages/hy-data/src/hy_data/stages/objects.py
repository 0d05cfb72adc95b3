"""People, and objects that cover the picture, by a YOLOX detector with given weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from hy_core.data import JSON, ClipRecord, Score, Stage
from hy_core.errors import MissingError, UsageError
from hy_core.options import option

from hy_data.boxes import areas, filled
from hy_data.frames import ClipFrames, FrameStage, View
from hy_data.yolox import COCO, Yolox


class Objects(FrameStage):
    """Find objects in a few frames: the 80 classes of COCO, or those of a detector of your own.

    Finds `people` (most in a frame), `person_area` (largest share of the picture that one person covers),
    `occluded_area` (largest share of the picture in a frame that objects of `occluding` cover together), and `objects`,
    for each class that was found the most in a frame. Without weights, the stage `faces` counts faces instead.
    """

    name = "objects"
    scores = (
        Score("people", "most people in a frame"),
        Score("person_area", "largest share of the picture that one person covers", "high"),
        Score("occluded_area", "largest share of the picture that occluding objects cover", "low"),
    )

    @dataclass(frozen=True)
    class Options(Stage.Options):
        """The detector, and what is looked at."""

        weights: Path = option(help="ONNX file of a YOLOX detector.", metavar="FILE")
        names: list[str] = option((), help="Names of its classes in order; default: COCO's 80.")
        person: str = option("person", help="Class that counts as people.")
        occluding: list[str] = option((), help="Classes that occlude, such as watermark or logo.")
        frames: int = option(4, help="Frames that are examined.", minimum=1, maximum=64)
        height: int = option(
            640, help="Height in pixels at which they are decoded.", minimum=64, maximum=2160
        )
        score: float = option(0.4, help="Least score of an object.", minimum=0.01, maximum=1)

    @cached_property
    def _detector(self) -> Yolox:
        names = tuple(self.options.names) or COCO
        if unknown := sorted({*self.options.occluding} - {*names}):
            raise UsageError(
                f"objects: occluding = {unknown[0]!r} is no class of the detector", ", ".join(names)
            )
        try:
            return Yolox(self.options.weights, names)
        except MissingError as error:
            raise MissingError(f"objects: {error.message}", error.hint) from None

    def setup(self) -> None:
        """Load the detector; `MissingError` without the file or ONNX Runtime, `UsageError` for another kind of file."""
        _ = self._detector

    def views(self) -> tuple[View, ...]:
        return (View(self.options.height, count=self.options.frames),)

    def measure(self, record: ClipRecord, frames: ClipFrames) -> tuple[Mapping[str, JSON | np.ndarray], None]:
        pictures = frames[self.views()[0]]
        size = (pictures.shape[1], pictures.shape[2])
        most: Counter[str] = Counter()
        person = occluded = 0.0
        for picture in pictures:
            found = self._detector.find(picture, self.options.score)
            names = np.asarray(self._detector.names)[found.classes]
            most |= Counter(str(name) for name in names)
            people = found.boxes[names == self.options.person]
            person = max(person, float(areas(people).max(initial=0)) / (size[0] * size[1]))
            covering = found.boxes[np.isin(names, list(self.options.occluding))]
            occluded = max(occluded, filled(covering[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2), size))
        return {
            "people": most[self.options.person],
            "person_area": round(person, 5),
            "occluded_area": round(occluded, 5),
            "objects": dict(sorted(most.items())),
        }, None
