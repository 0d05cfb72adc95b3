"""Write GIFs."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hy_core.errors import UsageError
from hy_core.files import Existing
from hy_core.media.writer import Comment, Writer
from hy_core.request import Sound

log = logging.getLogger(__name__)


class GifWriter(Writer):
    """A GIF with one palette for the clip; its clock counts hundredths of a second."""

    def __init__(
        self,
        path: Path,
        fps: float,
        sound: Sound | None = None,
        comment: Comment = None,
        existing: Existing = "replace",
    ) -> None:
        super().__init__(path, fps, sound, comment, existing)
        self.frames: list[np.ndarray] = []

    def put(self, frames: np.ndarray) -> None:
        self.frames.extend(frames)

    def finish(self) -> None:
        if not self.frames:
            raise UsageError(f"no frames to write to {self.path}")
        if self.sound is not None:
            log.warning("%s holds no sound: it was left out", self.path.name)
        ends = [round(100 * i / self.fps) for i in range(len(self.frames) + 1)]
        images, comment = paletted(self.frames), self.comment()
        extra: dict[str, Any] = {} if comment is None else {"comment": comment.encode()}
        with open(self.staging.file(self.path), "wb") as file:
            images[0].save(
                file,
                format="GIF",
                save_all=True,
                append_images=images[1:],
                duration=[max(10 * (b - a), 10) for a, b in zip(ends, ends[1:], strict=False)],
                loop=0,
                **extra,
            )


def paletted(frames: list[np.ndarray]) -> list[Image.Image]:
    """Convert frames uint8 [H, W, 3] to one palette of 255 colours, chosen from the whole clip."""
    step = max(len(frames) // 16, 1)
    # Rows of every chosen frame at a stride that keeps the sample near a million pixels.
    sample = np.concatenate(frames[::step], axis=0)
    stride = max(math.isqrt(sample.shape[0] * sample.shape[1] // 1_000_000), 1)
    palette = Image.fromarray(np.ascontiguousarray(sample[::stride, ::stride])).quantize(
        255, method=Image.Quantize.MEDIANCUT, kmeans=1
    )
    return [
        Image.fromarray(np.ascontiguousarray(frame)).quantize(
            palette=palette, dither=Image.Dither.FLOYDSTEINBERG
        )
        for frame in frames
    ]
