"""Frames of a clip, or a picture file as its only frame: decoded once, in the sizes and rates that stages want.

    frames = ClipFrames(record, [View(256, gray=True), View(360, count=8)])
    frames[View(360, count=8)]     uint8 [8, 360, W, 3]

Memory is bounded: the frames of all views together have at most `MAX_BYTES`, and one decoded frame is held besides.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
from av.video.reformatter import VideoReformatter
from hy_core.data import JSON, ClipRecord, Stage
from hy_core.errors import HyError
from hy_core.media import timeline
from hy_core.media.container import open_media, start_of, video_stream

from hy_data.stills import is_still, pictures

MAX_BYTES = 400 << 20
"""Bytes that the frames of a clip may have in all views; while they are stacked the largest view is held twice."""

_CLOCK = 1e-3  # seconds that a span's ends may be off a frame's time
_SLACK = 0.25  # of a frame that a frame may be late for its moment


@dataclass(frozen=True)
class View:
    """Frames that a stage wants.

    `height` in pixels; the width follows the aspect ratio (even, at least 2); pictures are never enlarged. `fps`:
    frames a second, at most the clip's own rate; a frame that is held longer comes again. `count`, instead of `fps`:
    this many, evenly spread, the first and the last among them (one: the middle); fewer if the clip has fewer. Neither:
    every frame once. `gray`: luma in full range.
    """

    height: int
    fps: float | None = None
    count: int | None = None
    gray: bool = False


class ClipFrames:
    """The frames of a record's span and crop in several views, decoded once, when the first of them is wanted.

    `HyError` then for a file that can't be read, for a span without frames, for a crop beyond the picture, and for
    frames of more than `MAX_BYTES`.
    """

    def __init__(self, record: ClipRecord, views: Iterable[View]) -> None:
        self.record, self.views = record, tuple(dict.fromkeys(views))

    def __getitem__(self, view: View) -> np.ndarray:
        """Return uint8 [T, H, W, 3], or [T, H, W] of a gray view, C-contiguous. `KeyError` for a view not asked for."""
        return self._decoded[view][0]

    def times(self, view: View) -> np.ndarray:
        """Return when the frames of a view begin, ascending: float64 [T], seconds from the clip's start."""
        return self._decoded[view][1]

    def is_of(self, record: ClipRecord) -> bool:
        """Whether these are the frames of a record: false once a stage has changed its span or crop."""
        mine = self.record
        return (mine.file, mine.span, mine.crop) == (record.file, record.span, record.crop)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the full picture, cropped, in pixels."""
        left, top, right, bottom = self.record.crop or (0, 0, *reversed(self._full))
        return bottom - top, right - left

    @property
    def fps(self) -> float:
        """The file's frames a second: their mean for a whole file, else as its header says."""
        return self._extent[2]

    @property
    def duration(self) -> float:
        """Seconds of the span, or of the whole file; 0 of a picture file."""
        return self._extent[1]

    @cached_property
    def _extent(self) -> tuple[float, float, float]:
        """The first frame's time on the file's clock, the clip's seconds, and its frames a second."""
        file = self.record.file
        if is_still(file):
            return 0.0, 0.0, 1.0
        start, rate = _header(file, *_state(file))
        if self.record.span is not None and start is not None:
            return start, self.record.span[1] - self.record.span[0], rate
        extent = timeline.measure(file)
        if not extent.frames:
            raise HyError(f"{file} has no picture stream")
        start = extent.start if start is None else start
        if self.record.span is not None:
            return start, self.record.span[1] - self.record.span[0], extent.fps
        return start, extent.duration, extent.fps

    @cached_property
    def _decoded(self) -> dict[View, tuple[np.ndarray, np.ndarray]]:
        start, stop = self.record.span or (-math.inf, math.inf)
        origin, duration, rate = self._extent
        begin = max(start, 0.0)
        tracks = {view: _Track(view, _moments(view, duration, rate), _SLACK / rate) for view in self.views}
        held: timeline.Picture | None = None
        used = 0
        for picture in pictures(self.record.file, (start - _CLOCK, stop - _CLOCK), origin=origin):
            if held is None:
                self._full = picture.size
                self._check_crop()
            else:
                used += sum(
                    track.take(held, held.time - begin, picture.time - begin, self.record.crop)
                    for track in tracks.values()
                )
            if used > MAX_BYTES:
                raise HyError(
                    f"{self.record.path}: the frames of {duration:.0f} s are over {MAX_BYTES >> 20} MB",
                    "cut it into shorter clips by the stage shots",
                )
            held = picture
        if held is None:
            raise HyError(f"{self.record.path} has no frames from {begin:g} to {stop:g} s")
        end = held.time - begin + max(held.length, 1 / rate)
        for track in tracks.values():
            track.take(held, held.time - begin, end, self.record.crop, is_last=True)
        return {view: tracks.pop(view).stacked() for view in self.views}

    @cached_property
    def _full(self) -> tuple[int, int]:
        """Height and width of the whole picture; set by decoding."""
        if not self.views:
            span = self.record.span or (-math.inf, math.inf)
            for picture in pictures(self.record.file, span, origin=self._extent[0]):
                return picture.size
        _ = self._decoded
        return self._full

    def _check_crop(self) -> None:
        height, width = self._full
        if self.record.crop is not None and (self.record.crop[2] > width or self.record.crop[3] > height):
            raise HyError(
                f"{self.record.path} is {width}x{height}, too small for the crop {list(self.record.crop)}"
            )


class FrameStage(Stage):
    """A stage that looks at frames. Subclasses define `views` and `measure`.

    A pipeline runs consecutive frame stages on one `ClipFrames` with the views of all of them; after a stage that
    changes the record's span or crop it makes a new one (`ClipFrames.is_of`). One that also reads results of other
    stages names those in `needs`.
    """

    needs: ClassVar[tuple[str, ...] | None] = ()

    def views(self) -> tuple[View, ...]:
        """Return what `measure` reads of the frames."""
        raise NotImplementedError

    def measure(
        self, record: ClipRecord, frames: ClipFrames
    ) -> tuple[Mapping[str, JSON | np.ndarray], str | None]:
        """Return new results by name, arrays of any shape among them, and the reason to reject the clip or None."""
        raise NotImplementedError

    def found(self, record: ClipRecord) -> tuple[Mapping[str, JSON | np.ndarray], str | None]:
        return self.measure(record, ClipFrames(record, self.views()))


@dataclass
class _Track:
    """The frames of one view, as they come; `moments` in seconds, None for every frame."""

    view: View
    moments: np.ndarray | None
    slack: float
    next: int = 0
    images: list[np.ndarray] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    scaler: VideoReformatter = field(default_factory=VideoReformatter)

    def take(
        self,
        picture: timeline.Picture,
        time: float,
        until: float,
        crop: timeline.Crop | None,
        is_last: bool = False,
    ) -> int:
        """Take a picture that is shown from `time` to `until` if a moment is in there; return the bytes it needs."""
        times = [time]
        if self.moments is not None:
            first = self.next
            while self.next < len(self.moments) and self.moments[self.next] + self.slack < until:
                self.next += 1
            times = [max(time, 0.0), *self.moments[first + 1 : self.next]] if self.next > first else []
            if self.view.count is not None:
                times = times[:1] or ([time] if is_last and self.next < len(self.moments) else [])
            if is_last and not self.images:
                times = times or [time]
        if times:
            image = _image(picture, self.view, crop, self.scaler)
            self.images += [image] * len(times)
            self.times += times
            return image.nbytes * len(times)
        return 0

    def stacked(self) -> tuple[np.ndarray, np.ndarray]:
        images = np.stack(self.images)
        self.images.clear()
        return images, np.asarray(self.times, np.float64)


def _moments(view: View, duration: float, rate: float) -> np.ndarray | None:
    """When a view's frames are shown, seconds from the clip's start; None for all frames."""
    if view.count is not None:
        last = max(duration - 1 / rate, 0.0)
        moments = np.linspace(0, last, view.count) if view.count > 1 else np.array([last / 2])
        if view.count > 1:
            moments[-1] = math.inf  # the last frame, wherever a varying rate puts it
        return moments
    if view.fps is None:
        return None
    view_rate = rate if view.fps >= rate * 0.99 else view.fps  # nearly the same rates would repeat a frame
    return np.arange(max(1, math.ceil((duration - _SLACK / rate) * view_rate - 1e-6))) / view_rate


def _image(
    picture: timeline.Picture, view: View, crop: timeline.Crop | None, scaler: VideoReformatter
) -> np.ndarray:
    scaled, (top, left), (height, width) = scaled_window(picture.size, crop, view.height)
    image = picture.to_array(scaled, gray=view.gray, scaler=scaler)
    return np.ascontiguousarray(image[top : top + height, left : left + width])


def scaled_window(
    full: tuple[int, int], crop: timeline.Crop | None, height: int
) -> tuple[tuple[int, int] | None, tuple[int, int], tuple[int, int]]:
    """Return the size to shrink a picture to (None: as it is), and the corner and size of the crop in that.

    `full` and all sizes are (height, width). The window is within the crop, at most one pixel smaller on each side.
    """
    left, top, right, bottom = crop or (0, 0, full[1], full[0])
    lengths, corner = (bottom - top, right - left), (top, left)
    scale = min(1.0, height / lengths[0])
    target = [min(max(2, 2 * round(length * scale / 2)), length // 2 * 2 or 1) for length in lengths]
    if scale == 1:
        return None, corner, (target[0], target[1])
    if crop is None:
        return (target[0], target[1]), (0, 0), (target[0], target[1])
    sizes = [
        min(all_, math.ceil(all_ * (t + 1) / part))
        for all_, t, part in zip(full, target, lengths, strict=True)
    ]
    corners = [
        min(math.ceil(at * size / all_), size - t)
        for at, size, all_, t in zip(corner, sizes, full, target, strict=True)
    ]
    return (sizes[0], sizes[1]), (corners[0], corners[1]), (target[0], target[1])


def _state(file: Path) -> tuple[int, int]:
    try:
        about = file.stat()
    except OSError:
        return 0, 0  # opening it says what is wrong
    return about.st_mtime_ns, about.st_size


@lru_cache(maxsize=64)
def _header(file: Path, _changed: int, _size: int) -> tuple[float | None, float]:
    """Return the start of the video on the file's clock and its frames a second, as the header says."""
    with open_media(file) as container:
        video = video_stream(container, file)
        if video is None:
            raise HyError(f"{file} has no picture stream")
        return start_of(video), timeline.nominal_rate(video)
