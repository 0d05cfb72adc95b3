"""Picture files as clips of one frame: read by Pillow, upright, in the form in which stages get frames of videos."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from hy_core.media import read_picture, timeline
from hy_core.media.display import Display
from hy_core.media.names import PICTURES


def is_still(path: Path) -> bool:
    """Whether a file is a picture, by its suffix."""
    return path.suffix.lower() in PICTURES


def read_still(path: Path) -> timeline.Picture:
    """Read a picture file as the frame of a clip at 0 s; `HyError` for what is damaged, no picture, or too large."""
    frame = av.VideoFrame.from_ndarray(np.asarray(read_picture(path)), format="rgb24")
    return timeline.Picture(0.0, 0.0, frame, Display(None, (1, 0, 0, 1)))


def pictures(
    path: Path, span: timeline.Span | None = None, *, origin: float | None = None
) -> Iterator[timeline.Picture]:
    """Yield the frames of a video as `timeline.pictures` does, and that of a picture file."""
    if not is_still(path):
        yield from timeline.pictures(path, span, origin=origin)
    elif span is None or span[0] <= 0 < max(span[1], math.ulp(0)):
        yield read_still(path)
