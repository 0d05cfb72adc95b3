"""A part of a video by its time: frames at an even rate, cut to a crop, and the sound that belongs to them.

Time is in seconds from the file's first frame, so that sound and picture are in step in files whose clock starts
elsewhere or whose sound begins late.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from hy_core import media
from hy_core.data import ClipRecord
from hy_core.errors import HyError
from hy_core.media import PICTURES, timeline
from hy_core.media.container import open_media

log = logging.getLogger(__name__)

RATE = 16000
"""Samples a second of what is heard."""
_SLACK = 0.25  # of a frame that a clock may be off


@dataclass(frozen=True)
class VideoSegment:
    """What a clip's record names: `path`; `span`, (start, stop) in seconds, all of the file if None; and `crop`.

    The crop is (left, top, right, bottom) in pixels; the whole picture if None. `fps` is the file's mean rate.
    """

    path: Path
    span: tuple[float, float] | None = None
    crop: tuple[int, int, int, int] | None = None

    @classmethod
    def of(cls, record: ClipRecord) -> VideoSegment:
        """Return the part of a file that a clip's record names."""
        return cls(record.file, record.span, record.crop)

    @property
    def fps(self) -> float:
        """The file's mean rate; `HyError` for what is no video."""
        if self.path.suffix.lower() in PICTURES:
            raise HyError(f"{self.path} is a picture, not a clip", "give a video")
        return media.probe(self.path).fps

    def frames(
        self, fps: float | None = None, start: float = 0.0, count: int | None = None
    ) -> Iterator[np.ndarray]:
        """Yield frames uint8 [H, W, 3], upright and cropped, at an even `fps` (the file's own if not given).

        `start` is in seconds from the beginning of the span, `count` the most frames. Each moment has the frame that
        is shown then. A file that breaks off gives what came before and a warning; nothing at all is a `HyError`.
        """
        own = self.fps
        moments = _Moments(fps or own, count, _SLACK / own)
        begin, end = self.span or (0.0, math.inf)
        begin += start
        held: Any = None
        last, decoded = 0.0, 0
        with open_media(self.path) as box:
            if not box.streams.video:
                raise HyError(f"{self.path} has no picture stream")
            video = box.streams.video[0]
            video.thread_type = "AUTO"
            origin = _origin(video)
            if begin > 2:
                _seek(box, (origin or 0.0) + begin)
            try:
                for frame in box.decode(video):
                    time = frame.time if frame.time is not None else (origin or 0.0) + decoded / own
                    origin = time if origin is None else origin
                    time, decoded = time - origin, decoded + 1
                    if time >= end - moments.slack:
                        break
                    if held is not None:
                        for _ in moments.before(time - begin):
                            yield self._cut(held)
                    if moments.done:
                        return
                    held, last = frame, time
            except (av.FFmpegError, OSError) as problem:
                if held is None:
                    raise HyError(f"{self.path} cannot be read as a video ({problem.strerror})") from problem
                log.warning(
                    "%s is damaged after %.1f s (%s)", self.path, last, getattr(problem, "strerror", problem)
                )
            if held is None or last + 1 / own <= begin:
                raise HyError(f"{self.path} has no frames" + (f" from {begin:g} s on" if begin else ""))
            for _ in moments.before(min(last + 1 / own, end) - begin):
                yield self._cut(held)

    def _cut(self, frame: Any) -> np.ndarray:
        image = frame.to_ndarray(format="rgb24")
        if frame.rotation % 360:
            image = np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90) % 4))
        if self.crop is None:
            return image
        left, top, right, bottom = self.crop
        if right > image.shape[1] or bottom > image.shape[0]:
            height, width = image.shape[:2]
            raise HyError(f"{self.path} is {width}x{height}, too small for the crop {list(self.crop)}")
        return image[top:bottom, left:right]

    def sound(
        self, rate: int = RATE, start: float = 0.0, seconds: float | None = None
    ) -> Iterator[np.ndarray]:
        """Yield the sound, mono float32 [n] at `rate` Hz, from `start` seconds behind the beginning of the span.

        Sound that begins later is preceded by zeros. `HyError` for a file without sound or with samples that are no
        numbers.
        """
        if timeline.sound_format(self.path) is None:
            raise HyError(f"{self.path} has no sound stream")
        begin, end = self.span or (0.0, math.inf)
        begin += start
        stop = min(end, math.inf if seconds is None else begin + seconds)
        for block in timeline.sound(self.path, rate, 1, (begin, stop)):
            yield block[0]


class _Moments:
    """Moments at an even rate, each of them given once."""

    def __init__(self, fps: float, count: int | None, slack: float) -> None:
        self.fps, self.count, self.slack, self.next = fps, count, slack, 0

    @property
    def done(self) -> bool:
        return self.count is not None and self.next >= self.count

    def before(self, time: float) -> Iterator[int]:
        """The moments that are left before a time."""
        while not self.done and self.next / self.fps + self.slack < time:
            self.next += 1
            yield self.next - 1


def _origin(stream: Any) -> float | None:
    """When a stream begins on its file's clock, in seconds; None if it doesn't say."""
    return None if stream.start_time is None else float(stream.start_time * stream.time_base)


def _seek(box: Any, time: float) -> None:
    """Go to the key frame before a time; a file that can't stays where it is, and is read through."""
    try:
        box.seek(max(int(time * av.time_base), 0))
    except (av.FFmpegError, OSError):
        log.debug("%s can't be sought", box.name)
