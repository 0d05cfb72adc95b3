"""Cut clips of a set out of their files: frames by their times, cropped, encoded again and checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from hy_core.data import ClipRecord
from hy_core.errors import HyError
from hy_core.media import open_writer, read_picture
from hy_core.media.names import PICTURES
from hy_core.media.timeline import even_rate, frames_at, measure, sound, sound_format
from hy_core.request import Sound
from PIL import Image

from hy_data.table import read_path

_SLACK = 1  # frames that a clip may have more or less than its seconds say


def cut(row: Mapping[str, Any], home: Path, target: Path, fps: float | None = None) -> dict[str, Any]:
    """Write the clip of a row of a set to `target`.mp4, or its picture to `target`.png, and return its facts.

    `fps`: frames a second, by default the file's own. The sound of the span is written with the frames. Facts: `file`,
    `width`, `height` and, of a clip, `frames` (as counted in the written file) and `fps`. `HyError` if the source can't
    be read, and if the file that was written hasn't the frames that it should have.
    """
    source = ClipRecord(read_path(row["path"]), home=home).file
    if "time" in row:
        return _picture(row, source, target.with_suffix(".png"))
    file = target.with_suffix(".mp4")
    start, stop = row["start"] or 0.0, row["stop"]
    span = (start, float("inf") if stop is None else stop)
    rate = fps or even_rate(source)
    crop = None if row.get("crop") is None else tuple(row["crop"])
    written = 0
    with open_writer(file, rate, _sound(source, span)) as writer:
        for frame in frames_at(source, rate, span, crop=crop):
            height, width = frame.shape[:2]
            writer.add(frame)
            written += 1
    there = measure(file).frames
    wanted = written if stop is None else round((stop - start) * rate)
    if there != written or abs(there - wanted) > _SLACK:
        file.unlink()
        raise HyError(
            f"{row['id']}: {there} frames were written, {wanted} are in {source.name} from {start:g} s on"
        )
    return {"file": file, "width": width, "height": height, "frames": there, "fps": round(float(rate), 6)}


def _picture(row: Mapping[str, Any], source: Path, file: Path) -> dict[str, Any]:
    crop = row.get("crop")
    if row["time"] is None or source.suffix.lower() in PICTURES:
        image = read_picture(source)
        image = image if crop is None else image.crop(tuple(crop))
    else:
        span = (row["time"], row["time"] + 3600)
        frame = next(frames_at(source, span=span, count=1, crop=None if crop is None else tuple(crop)))
        image = Image.fromarray(frame)
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file, "PNG")
    return {"file": file, "width": image.width, "height": image.height}


def _sound(source: Path, span: tuple[float, float]) -> Sound | None:
    found = sound_format(source)
    if found is None:
        return None
    rate, channels = found
    pieces = list(sound(source, rate, min(channels, 2), span))
    return Sound(np.concatenate(pieces, axis=1), rate) if pieces else None
