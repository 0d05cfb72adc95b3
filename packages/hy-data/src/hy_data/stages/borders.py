"""Bars beside the picture (letterbox, pillarbox): cropped away, and their share of the area."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from hy_core.data import JSON, ClipRecord, Score, Stage
from hy_core.options import option

from hy_data.frames import ClipFrames, FrameStage, View

VIEW = View(256, fps=12, gray=True)
_FRAMES = 12  # of the view that are examined
_LEVEL = 10  # grey levels that a bar's pixels may be off its own level, by compression
_CLEAN = 0.98  # of a bar's pixels in each row that must be at its level; compression rings at the edges
_STEP = 16  # grey levels by which the picture differs from the bar at its edge, in some frame
_STRAIGHT = 0.5  # of the edge along which it must


class Borders(FrameStage):
    """Find bars of one level that end in a straight edge and don't change, and crop them away.

    A dark sky or a dark room is no bar: the picture must differ from the bar along half of its edge. The crop is one
    pixel of 256 inside. Finds `border_share`; changes `crop` if the bars have at least `least` of the area.
    """

    name = "borders"
    scores = (Score("border_share", "share of the picture that bars had, before the crop", "low"),)

    @dataclass(frozen=True)
    class Options(Stage.Options):
        """When bars are cropped."""

        least: float = option(
            0.01, help="Share of the area from which bars are cropped.", minimum=0, maximum=1
        )
        keep: float = option(0.2, help="Least share of the area that a crop keeps.", minimum=0, maximum=1)

    options: Options

    def views(self) -> tuple[View, ...]:
        return (VIEW,)

    def measure(self, record: ClipRecord, frames: ClipFrames) -> tuple[Mapping[str, JSON | np.ndarray], None]:
        images = frames[VIEW]
        images = images[np.unique(np.linspace(0, len(images) - 1, _FRAMES).round().astype(int))]
        height, width = images.shape[1:]
        top, bottom = (bar(side) for side in (images, images[:, ::-1]))
        inner = images[:, top : height - bottom].swapaxes(1, 2)
        left, right = (bar(side) for side in (inner, inner[:, ::-1]))
        kept = (height - top - bottom) * (width - left - right) / (height * width)
        if 1 - kept < max(self.options.least, 1e-9) or kept < self.options.keep:
            return {"border_share": round(1 - kept, 5) if kept >= self.options.keep else 0.0}, None
        full = frames.size
        scale = np.array([full[1] / width, full[0] / height] * 2)
        edges = np.array([left, top, width - right, height - bottom])
        inside = edges + np.array([left > 0, top > 0, -(right > 0), -(bottom > 0)])
        crop = np.array([*np.ceil((inside * scale)[:2]), *np.floor((inside * scale)[2:])]).astype(int)
        offset = record.crop[:2] if record.crop else (0, 0)
        return {
            "border_share": round(1 - kept, 5),
            "crop": [int(one) + offset[index % 2] for index, one in enumerate(crop)],
        }, None


def bar(images: np.ndarray) -> int:
    """Return the rows of a bar at the top of frames uint8 [T, H, W]; 0 for none."""
    level = int(np.median(images[:, 0]))
    off = cv2.absdiff(np.ascontiguousarray(images), np.full_like(images, level))
    clean = ((off <= _LEVEL).mean(2) >= _CLEAN).all(0)
    count = int(np.argmin(clean)) if not clean.all() else 0
    if count < 2:
        return 0
    edge = off[:, count : count + 2].max((0, 1))  # in some frame, the next two rows
    return count if (edge >= _STEP).mean() >= _STRAIGHT else 0
