"""A decoded frame as it is shown: square pixels, upright, RGB."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from hy_core.media.hdr import is_hdr, to_sdr

_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)  # ITU-R BT.709
_MAX_RATIO = 8  # a pixel wider or higher than this is a damaged header


@dataclass(frozen=True)
class Display:
    """How the frames of a stream are shown: `pixel_ratio`, the width of a pixel by its height (None: square), and the
    part (a, b, c, d) of the display matrix that turns and mirrors, x' = a x + c y, y' = b x + d y.
    """

    pixel_ratio: Any
    matrix: tuple[int, int, int, int]

    @classmethod
    def of(cls, frame: Any, pixel_ratio: Any) -> Display:
        """Read the display matrix of a PyAV frame.

        `frame.side_data` and the frame refer to each other, so a frame whose side data is read keeps its memory until
        Python collects cycles: don't call this for every frame of a clip.
        """
        data = frame.side_data.get("DISPLAYMATRIX")
        if data is None or len(bytes(data)) < 36:
            return cls(pixel_ratio, (1, 0, 0, 1))
        a, b, _, c, d, *_ = struct.unpack("=9i", bytes(data)[:36])
        return cls(pixel_ratio, (a, b, c, d))

    def size(self, frame: Any) -> tuple[int, int]:
        """Return the height and width in pixels in which a frame is shown.

        Of a pixel that isn't square the shorter side is stretched, so that nothing is lost.
        """
        height, width = self._square(frame)
        return (width, height) if _is_quarter_turn(self.matrix) else (height, width)

    def to_array(
        self, frame: Any, size: tuple[int, int] | None = None, *, gray: bool = False, scaler: Any = None
    ) -> np.ndarray:
        """Convert a frame to uint8 [H, W, 3] as it is shown, shrunk to `size` (height, width) if that is given.

        With `gray` it is the luma in full range, uint8 [H, W]. HDR colours become those of SDR. A `scaler`, PyAV's
        `VideoReformatter`, keeps its tables between the frames of one clip and one size: 1 ms less a frame of 720p.
        """
        height, width = self._square(frame) if size is None else size
        if size is not None and _is_quarter_turn(self.matrix):
            height, width = width, height
        scaling: dict[str, Any] = {}
        if (height, width) != (frame.height, frame.width):
            scaling = {
                "width": width,
                "height": height,
                "interpolation": "BICUBIC" if size is None else "AREA",
            }

        def convert(kind: str) -> np.ndarray:
            if scaler is not None:
                converted = scaler.reformat(frame, format=kind, **scaling)
            else:
                converted = frame.reformat(format=kind, **scaling)
            return np.asarray(converted.to_ndarray(format=kind))

        if is_hdr(frame):
            image = to_sdr(convert("rgb48le"), int(frame.color_trc))
            image = np.rint(image @ _LUMA).astype(np.uint8) if gray else image
        else:
            image = convert("gray" if gray else "rgb24")
        return _oriented(image, self.matrix)

    def _square(self, frame: Any) -> tuple[int, int]:
        height, width, ratio = frame.height, frame.width, self.pixel_ratio
        if ratio and 1 / _MAX_RATIO <= ratio <= _MAX_RATIO and ratio != 1:
            if ratio > 1:
                return height, round(width * ratio)
            return round(height / ratio), width
        return height, width


def _is_quarter_turn(matrix: tuple[int, int, int, int]) -> bool:
    a, b, c, d = matrix
    return abs(b) + abs(c) > abs(a) + abs(d)


def _oriented(image: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """Turn and mirror an image [H, W, 3] or [H, W] by the nearest multiple of a quarter."""
    a, b, c, d = matrix
    if _is_quarter_turn(matrix):
        image, mirrored, flipped = image.swapaxes(0, 1), c < 0, b < 0
    else:
        mirrored, flipped = a < 0, d < 0
    return np.ascontiguousarray(image[:: -1 if flipped else 1, :: -1 if mirrored else 1])


def describe_hdr(frame: Any) -> str | None:
    """Return "PQ" or "HLG" for an HDR frame, None for others."""
    from hy_core.media.hdr import TRANSFERS

    return TRANSFERS.get(int(frame.color_trc))
