"""What a file is: size, rate, length, sound; files that can't be used get a reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hy_core.data import JSON, ClipRecord, Score, Stage
from hy_core.errors import HyError
from hy_core.media import timeline
from hy_core.media.display import describe_hdr
from hy_core.options import option

from hy_data.stills import is_still, read_still

_STEADY = 0.2  # of a frame that frames of an even rate may be off


class Probe(Stage):
    """Read a file's packets and its first frame.

    Finds `width` and `height` (as shown: upright, square pixels), `fps` (mean), `frames`, `duration` in seconds,
    `has_audio`, `rotation` (degrees by which its frames are turned to be upright), `hdr` ("PQ", "HLG" or ""),
    `variable_rate`, and `damage` (why it breaks off, or ""). Rejects files without pictures, and short and small ones.
    A picture file has one frame, a `duration` of 0 and `is_picture`; only its size is checked.
    """

    name = "probe"
    scores = (
        Score("width", "width as shown", "high", "pixels"),
        Score("height", "height as shown", "high", "pixels"),
        Score("fps", "mean frames a second", "high"),
        Score("frames", "number of frames"),
        Score("duration", "length", "", "s"),
    )

    @dataclass(frozen=True)
    class Options(Stage.Options):
        """What a file must have."""

        shortest: float = option(0.5, help="Seconds that a file must have.", minimum=0)
        least_frames: int = option(2, help="Frames that a file must have.", minimum=1)
        least_height: int = option(
            64, help="Pixels of the shorter side that a file must have.", minimum=1, maximum=8192
        )

    options: Options

    def found(self, record: ClipRecord) -> tuple[Mapping[str, JSON | np.ndarray], str | None]:
        file, options = record.file, self.options
        if is_still(file):
            return self._still(file)
        extent = timeline.measure(file)
        if not extent.frames:
            return {"has_audio": extent.sounds > 0}, "no pictures" + (", only sound" if extent.sounds else "")
        times = timeline.frame_times(file)
        picture = next(timeline.pictures(file), None)
        if picture is None:
            raise HyError(f"{file} has no frames")
        height, width = picture.size
        steps = np.diff(times)
        results: dict[str, JSON | np.ndarray] = {
            "width": width,
            "height": height,
            "fps": round(extent.fps, 6),
            "frames": extent.frames,
            "duration": round(extent.duration, 6),
            "has_audio": extent.sounds > 0,
            "rotation": int(round(picture.frame.rotation)) % 360,
            "hdr": describe_hdr(picture.frame) or "",
            "variable_rate": bool(len(steps) > 1 and np.ptp(steps) > 2 * _STEADY * extent.frame),
            "damage": extent.damage or "",
        }
        if extent.frames < options.least_frames:
            return (
                results,
                f"{extent.frames} frame{'s' * (extent.frames > 1)}, fewer than {options.least_frames}",
            )
        if extent.duration < options.shortest:
            return results, f"{extent.duration:.2f} s, shorter than {options.shortest:g} s"
        return results, self._small(height, width)

    def _still(self, file: Path) -> tuple[Mapping[str, JSON | np.ndarray], str | None]:
        height, width = read_still(file).size
        results = {"width": width, "height": height, "frames": 1, "duration": 0.0, "is_picture": True}
        return results, self._small(height, width)

    def _small(self, height: int, width: int) -> str | None:
        least = self.options.least_height
        return f"{width}x{height} pixels, smaller than {least}" if min(height, width) < least else None
