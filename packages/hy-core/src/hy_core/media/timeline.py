"""Read frames and sound of a file by their times, in pieces: nothing here holds a whole clip.

    measure(path)                          how long it is, from its packets alone: an `Extent`
    frame_times(path)                      when its frames begin, from its packets alone
    pictures(path, span)                   each frame before its conversion: for several sizes of one decoding
    frames(path, span)                     each frame with its time: (seconds, uint8 [H, W, 3])
    frames_at(path, fps, span)             frames at an even rate: at each moment the one that is shown then
    sound(path, rate, channels, span)      float32 [channels, n], in step with the frames
    sound_format(path)                     the sound's own rate and channels

Times are seconds from the first frame (from the first sample in a file without pictures), whatever the file's clock
says there. So frames of a varying rate, sound that begins late, and files whose clock starts elsewhere are in step. A
`span` is (start, stop) in such seconds; a reader goes to the key frame before its start.

Frames are as they are shown: upright, mirrored if the file says so, with square pixels, HDR as SDR. `crop` is (left,
top, right, bottom) in pixels of these.

A file that is damaged or breaks off gives what can be read and a warning in the log; one that gives nothing is a
`HyError`, and so are frames that change their size, sound that is not finite, and a frame that is shown for hours.
Names are files, never addresses (see `hy_core.media.container`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hy_core.errors import HyError
from hy_core.media.container import open_media, seek, start_of, video_stream
from hy_core.media.decoding import Decoder
from hy_core.media.display import Display
from hy_core.media.extent import MIN_RATE, Extent, even_rate, frame_times, measure, nominal_rate
from hy_core.media.sound import sound, sound_format

__all__ = [
    "MIN_RATE",
    "Crop",
    "Extent",
    "Picture",
    "Span",
    "even_rate",
    "frame_times",
    "frames",
    "frames_at",
    "measure",
    "nominal_rate",
    "pictures",
    "sound",
    "sound_format",
]

Span = tuple[float, float]
Crop = tuple[int, int, int, int]

_SLACK = 0.25  # of a frame that a clock may be off
_SEEK_FROM = 2.0  # seconds that are decoded rather than sought


@dataclass(frozen=True)
class Picture:
    """A decoded frame that is not converted yet; `time` and `length` in seconds, as its file says."""

    time: float
    length: float
    frame: Any
    display: Display

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels in which it is shown."""
        return self.display.size(self.frame)

    def to_array(
        self, size: tuple[int, int] | None = None, *, gray: bool = False, scaler: Any = None
    ) -> np.ndarray:
        """Return uint8 [H, W, 3], or [H, W] with `gray`; see `Display.to_array`."""
        return self.display.to_array(self.frame, size, gray=gray, scaler=scaler)


def pictures(path: Path | str, span: Span | None = None, *, origin: float | None = None) -> Iterator[Picture]:
    """Yield each frame, with `span` those that begin in it; `origin` as for `frames`. `HyError` for no frame."""
    path = Path(path)
    start, stop = span or (-math.inf, math.inf)
    found = False
    for time, length, frame, display in _decoded(path, start, origin):
        found = True
        if time >= stop:
            break
        if time >= start:
            yield Picture(time, length, frame, display)
    if not found:
        raise HyError(f"{path} has no frames")


def frames(
    path: Path | str,
    span: Span | None = None,
    *,
    size: tuple[int, int] | None = None,
    crop: Crop | None = None,
    origin: float | None = None,
) -> Iterator[tuple[float, np.ndarray]]:
    """Yield (seconds, uint8 [H, W, 3]) for each frame, with `span` those that begin in it.

    `size` (height, width) shrinks the frames, before `crop`. `origin` is `Extent.start`, if it is known already.
    """
    for one in pictures(path, span, origin=origin):
        yield one.time, _cut(one.to_array(size), crop, Path(path))


def frames_at(
    path: Path | str,
    fps: float | None = None,
    span: Span | None = None,
    *,
    count: int | None = None,
    size: tuple[int, int] | None = None,
    crop: Crop | None = None,
    origin: float | None = None,
) -> Iterator[np.ndarray]:
    """Yield uint8 [H, W, 3] at an even rate, `even_rate(path)` if none is given, from the start of `span`.

    At each moment comes the frame that is shown then, up to the end of the last frame or of the span; at most `count`.
    A frame whose clock is off by a quarter of a frame still is in time. `HyError` for no frame at all.
    """
    path = Path(path)
    own = even_rate(path) if fps is None else None
    begin, stop = span or (0.0, math.inf)
    moments: _Moments | None = None
    shown: np.ndarray | None = None
    held: tuple[float, float, Any, Any] | None = None
    for time, length, frame, display in _decoded(path, begin, origin):
        if moments is None:
            moments = _Moments(fps or own or 1 / length, count, _SLACK * (1 / own if own else length))
        if time >= stop - moments.slack:
            break
        if held is not None:
            for _ in moments.before(time - begin):
                shown = _cut(held[3].to_array(held[2], size), crop, path) if shown is None else shown
                yield shown
        if moments.is_done:
            return
        held, shown = (time, length, frame, display), None
    if held is None or moments is None or held[0] + held[1] <= begin:
        raise HyError(f"{path} has no frames" + (f" from {begin:g} s on" if begin > 0 else ""))
    for _ in moments.before(min(held[0] + held[1], stop) - begin):
        shown = _cut(held[3].to_array(held[2], size), crop, path) if shown is None else shown
        yield shown


class _Moments:
    """Moments at an even rate, each of them yielded once; `slack` in seconds is how late a frame may be."""

    def __init__(self, fps: float, count: int | None, slack: float) -> None:
        self.fps, self.count, self.slack, self.next = fps, count, min(slack, 0.5 / fps), 0

    @property
    def is_done(self) -> bool:
        return self.count is not None and self.next >= self.count

    def before(self, time: float) -> Iterator[int]:
        """Yield the moments left before a time."""
        while not self.is_done and self.next / self.fps + self.slack < time:
            self.next += 1
            yield self.next - 1


def _decoded(path: Path, start: float, origin: float | None) -> Iterator[tuple[float, float, Any, Display]]:
    """Yield (seconds, seconds shown by the header, frame, its display) from the key frame before `start` on."""
    with open_media(path) as container:
        video = video_stream(container, path)
        if video is None:
            raise HyError(f"{path} has no picture stream")
        video.thread_type = "AUTO"
        usual, ratio = 1 / nominal_rate(video), video.sample_aspect_ratio
        zero = start_of(video) if origin is None else origin
        sought = start > _SEEK_FROM and zero is not None and seek(container, zero + start)
        last, number, size = None, 0, None
        display, rotation = None, 0
        for frame in Decoder(path, container, video, whole=not sought):
            time = frame.time if frame.time is not None else (zero or 0.0) + number * usual
            if number == 0:
                if sought and zero is not None and time - zero > start + usual:
                    break  # the file's index is wrong: read it from its beginning
                if zero is None or (origin is None and not sought):
                    zero = time
            size = size or (frame.width, frame.height)
            if (frame.width, frame.height) != size:
                raise HyError(
                    f"{path} changes its size from {size[0]}x{size[1]} to {frame.width}x{frame.height}"
                )
            length = float((frame.duration or 0) * frame.time_base) if frame.time_base else 0.0
            if max(length, time - last if last is not None else 0.0) > 1 / MIN_RATE:
                raise HyError(f"{path} is damaged: frame {number} is shown for {length:.0f} s")
            if display is None or frame.rotation != rotation:
                display, rotation = Display.of(frame, ratio), frame.rotation
            number, last = number + 1, time
            yield time - (zero or 0.0), length or usual, frame, display
        else:
            return
    for time, length, frame, display in _decoded(path, -math.inf, zero):
        if time >= start - length:
            yield time, length, frame, display


def _cut(image: np.ndarray, crop: Crop | None, path: Path) -> np.ndarray:
    if crop is None:
        return image
    left, top, right, bottom = crop
    if right > image.shape[1] or bottom > image.shape[0]:
        height, width = image.shape[:2]
        raise HyError(f"{path} is {width}x{height}, too small for the crop {list(crop)}")
    return image[top:bottom, left:right]
