"""Read pictures and the end of a clip, and bring them to the video's size. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hy_core.errors import HyError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

MIN_SIDE = 16
"""Pixels."""
MAX_BYTES = 2 << 30
"""Of a clip's frames in memory."""


def open_picture(path: Path, flag: str) -> Image.Image:
    """Return a picture, RGB and upright; HyError for one that can't be read or has a side under 16 pixels."""
    from hy_core.media import read_picture

    picture = read_picture(path)
    if min(picture.size) < MIN_SIDE:
        raise UsageError(
            f"{flag}: {path} is only {picture.width}x{picture.height} pixels", f"at least {MIN_SIDE} a side"
        )
    return picture


def read_clip_end(path: Path, count: int, fps: float, flag: str) -> np.ndarray:
    """Return the end of a clip, uint8 [count, H, W, 3]: the frames shown at `fps` back from its last frame.

    `UsageError` if the clip is too short, `HyError` if it can't be read or has frames too large to hold.
    """
    import numpy as np
    from hy_core.media import timeline

    times = timeline.frame_times(path)
    if not len(times):
        raise UsageError(f"{flag}: {path} has no pictures")
    # Half of the shortest frame is rounding; of a clip with an even rate that takes the nearest frames.
    slack = np.diff(times).min() / 2 if len(times) > 1 else 0.5 / fps
    moments = times[-1] - np.arange(count - 1, -1, -1) / fps
    if moments[0] < -slack:
        raise UsageError(
            f"{flag}: {path} has only {len(times)} frames in {times[-1]:g} s; {count} at {fps:g} fps take "
            f"{(count - 1) / fps:g} s",
            "a smaller --i2v-overlap",
        )
    wanted = np.maximum(np.searchsorted(times, moments + slack * (1 - 1e-6), "right") - 1, 0)
    places: dict[int, np.ndarray] = {}
    for time, image in timeline.frames(path, (times[wanted[0]] - slack / 2, np.inf)):
        if (place := int(np.abs(times - time).argmin())) in wanted:
            places[place] = image
            if image.nbytes * len(places) > MAX_BYTES:
                raise HyError(f"{flag}: {path} has frames too large to hold", "make them smaller")
    if missing := [place for place in wanted if place not in places]:
        raise HyError(f"{flag}: {path} is damaged: its frame {missing[0]} can't be read")
    return np.stack([places[place] for place in wanted])


def resize_all(pictures: Sequence[Image.Image], width: int, height: int, fit: str) -> np.ndarray:
    """Return pictures at the video's size, uint8 [F, H, W, 3]; see `resize`."""
    import numpy as np

    return np.stack([np.asarray(resize(one, width, height, fit)) for one in pictures])


def resize(picture: Image.Image, width: int, height: int, fit: str) -> Image.Image:
    """Return a picture at another size: "crop" fills it and cuts the rest off, "pad" adds black bars.

    "crop" with an official size is the official preparation: bilinear to the shorter side, then the middle.
    """
    from PIL import Image

    scales = width / picture.width, height / picture.height
    scale = max(scales) if fit == "crop" else min(scales)
    # The deciding side fits exactly; the other is cut to whole pixels.
    wide = width if scale == scales[0] else max(int(picture.width * height / picture.height), 1)
    high = height if scale == scales[1] else max(int(picture.height * width / picture.width), 1)
    if (wide, high) != picture.size:
        picture = picture.resize((wide, high), Image.Resampling.BILINEAR)
    left, top = round((wide - width) / 2), round((high - height) / 2)
    return picture.crop((left, top, left + width, top + height))
