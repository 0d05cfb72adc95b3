"""Write pictures: one, or numbered ones."""

from __future__ import annotations

import io
import logging
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from hy_core.errors import UsageError
from hy_core.media.names import frame_path, is_numbered, pattern_hint
from hy_core.media.writer import Writer

log = logging.getLogger(__name__)

_JPEG_COMMENT = 65000  # bytes: one segment holds no more
_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


class PictureWriter(Writer):
    """One picture, or numbered ones when the name holds a number pattern such as `%03d`.

    The first carries the comment, and is the last to appear.
    """

    count = 0
    _first: np.ndarray | None = None

    def put(self, frames: np.ndarray) -> None:
        for image in frames:
            self.count += 1
            if self.count > 1 and not is_numbered(self.path):
                raise UsageError(
                    f"{self.path} is one picture but the clip has more frames", pattern_hint(self.path)
                )
            staged = self.staging.file(frame_path(self.path, self.count))
            if self._first is None:
                self._first, self._staged_first = image.copy(), staged
            else:
                staged.write_bytes(encoded(image, self.path.suffix))

    def finish(self) -> None:
        if self._first is None:
            raise UsageError(f"no frames to write to {self.path}")
        if self.sound is not None:
            log.warning("%s holds no sound: it was left out", self.path.name)
        self._staged_first.write_bytes(encoded(self._first, self.path.suffix, self.comment(self.count)))


def encoded(image: np.ndarray, suffix: str, comment: str | None = None) -> bytes:
    """Encode a picture uint8 [H, W, 3] in the format of a suffix, with a comment where the format has one."""
    suffix, extra = suffix.lower(), dict[str, Any]()
    if suffix == ".png" and comment is not None:
        extra["pnginfo"] = PngImagePlugin.PngInfo()
        extra["pnginfo"].add_itxt("comment", comment)
    elif suffix in (".jpg", ".jpeg"):
        extra |= {"quality": 95, "subsampling": 0}
        if comment is not None and len(comment.encode()) < _JPEG_COMMENT:
            extra["comment"] = comment.encode()
    elif suffix == ".webp":
        extra |= {"lossless": True}
        if comment is not None:
            extra["xmp"] = comment.encode()
    held = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(held, format=_FORMATS[suffix], **extra)
    return held.getvalue()
