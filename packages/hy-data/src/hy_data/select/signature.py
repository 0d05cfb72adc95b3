"""The signature of a clip: a few small grey pictures with their times, enough to compare two clips without their files.

As bytes: "HYS1", uint16 count, for each picture float32 seconds and uint32 size, then the pictures as WebP; integers
and floats are little-endian. Local features of the same frames (SIFT, 400 of them) would need five times the bytes and
would not tell whether the rest of the picture agrees.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import cv2
import numpy as np
from hy_core.errors import HyError

_MAGIC = b"HYS1"
_MOST_PICTURES = 64
_MOST_SIDE = 2048


@dataclass(frozen=True)
class Signature:
    """Grey pictures of a clip, each uint8 [H, W], and their times, seconds from the clip's start."""

    pictures: tuple[np.ndarray, ...]
    times: tuple[float, ...]


def encode(pictures: np.ndarray, times: np.ndarray, quality: int) -> np.ndarray:
    """Return the signature of pictures, uint8 [T, H, W], as uint8 [N]; `quality` is WebP's, 1 to 100."""
    coded = [
        cv2.imencode(".webp", picture, [cv2.IMWRITE_WEBP_QUALITY, quality])[1].tobytes()
        for picture in pictures
    ]
    head = _MAGIC + struct.pack("<H", len(coded))
    rows = [struct.pack("<fI", time, len(data)) for time, data in zip(times, coded, strict=True)]
    return np.frombuffer(head + b"".join(rows) + b"".join(coded), np.uint8)


def decode(data: bytes) -> Signature:
    """Return the pictures of a signature; `HyError` if it isn't one."""
    try:
        if data[:4] != _MAGIC:
            raise ValueError("another format")
        (count,) = struct.unpack_from("<H", data, 4)
        if not 0 < count <= _MOST_PICTURES:
            raise ValueError(f"{count} pictures")
        rows = [struct.unpack_from("<fI", data, 6 + 8 * index) for index in range(count)]
        start = 6 + 8 * count
        pictures = []
        for _, size in rows:
            picture = cv2.imdecode(np.frombuffer(data[start : start + size], np.uint8), cv2.IMREAD_GRAYSCALE)
            if picture is None or max(picture.shape) > _MOST_SIDE:
                raise ValueError("a damaged picture")
            pictures.append(picture)
            start += size
    except (struct.error, ValueError, cv2.error) as error:
        raise HyError(
            f"a clip's signature can't be read ({error})", "run the stage signature again"
        ) from error
    return Signature(tuple(pictures), tuple(time for time, _ in rows))
