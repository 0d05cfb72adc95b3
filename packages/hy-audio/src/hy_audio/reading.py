"""Frames and sound of a file by their time, in pieces: nothing here holds a whole clip.

Time is in seconds from the first frame (from the first sample in a file without pictures), so that a file whose
clock starts elsewhere, whose rate varies or whose sound begins late is in step with what is made for it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from hy_core.errors import HyError
from hy_core.media import PICTURES
from hy_core.media.container import open_media

log = logging.getLogger(__name__)

_GAP = 0.05  # seconds that sound may lag behind its clock before silence is put in
_LONGEST_GAP = 60.0  # a clock that jumps further is broken


@dataclass(frozen=True)
class Extent:
    """How long a clip is, from its packets alone.

    `start`: of the first frame on the file's own clock; `duration`: to the end of the last frame, 0 without
    pictures; `frame`: mean seconds of a frame; `sounds`: number of sound streams; `damage`: why the file breaks
    off, if it does.
    """

    start: float
    duration: float
    frames: int
    frame: float
    sounds: int
    damage: str | None = None


def picture_stream(box: Any) -> Any | None:
    """The first stream of moving pictures; a cover beside a song is none."""
    for stream in box.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    return None


def measure(path: Path | str) -> Extent:
    """Walk through a file's packets; `HyError` for what can't be opened."""
    path, count, damage = Path(path), 0, None
    if path.suffix.lower() in PICTURES:
        raise HyError(f"{path} is a picture, not a clip", "give a video")
    with open_media(path) as box:
        video, sounds = picture_stream(box), len(box.streams.audio)
        if video is None:
            return Extent(0.0, 0.0, 0, 0.0, sounds)
        first = last = end = None
        guess = 1 / float(video.average_rate or video.guessed_rate or 25)
        try:
            for packet in box.demux(video):
                time = packet.pts if packet.pts is not None else packet.dts
                if time is None or packet.size == 0:
                    continue
                begin = float(time * packet.time_base)
                length = float((packet.duration or 0) * packet.time_base) or guess
                count += 1
                first = begin if first is None else min(first, begin)
                if last is None or begin >= last:
                    last, end = begin, begin + length
        except (av.FFmpegError, OSError) as problem:
            damage = str(problem.strerror or problem)
    if first is None or last is None or end is None:
        raise HyError(f"{path} has no frames" + (f" ({damage})" if damage else ""))
    return Extent(first, end - first, count, (end - first) / count, sounds, damage)


def timed(
    path: Path | str,
    size: tuple[int, int] | None = None,
    span: tuple[float, float] | None = None,
    origin: float | None = None,
) -> Iterator[tuple[float, np.ndarray]]:
    """Yield (seconds, frame uint8 [H, W, 3], upright) one by one, shrunk to `size` (height, width) if given.

    With `span` only the frames that begin in it, and `origin`, the first frame's time on the file's clock, saves a
    walk through the file. One that breaks off gives what came before and a warning; one that gives nothing is a
    `HyError`.
    """
    path, count, first = Path(path), 0, origin
    start, stop = span or (-math.inf, math.inf)
    if span and origin is None:
        first = measure(path).start
    with open_media(path) as box:
        video = picture_stream(box)
        if video is None:
            raise HyError(f"{path} has no picture stream")
        video.thread_type = "AUTO"
        guess = 1 / float(video.average_rate or video.guessed_rate or 25)
        if span and start > 2:
            seek(box, (first or 0.0) + start)
        try:
            for frame in box.decode(video):
                time = frame.time if frame.time is not None else (first or 0.0) + count * guess
                first = time if first is None else first
                count += 1
                if time - first < start:
                    continue
                if time - first >= stop:
                    return
                if size is None:
                    image = frame.to_ndarray(format="rgb24")
                else:
                    image = frame.reformat(size[1], size[0], "rgb24", interpolation="AREA").to_ndarray()
                if frame.rotation % 360:
                    image = np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90) % 4))
                yield time - first, image
        except (av.FFmpegError, OSError) as problem:
            if not count:
                raise HyError(f"{path} cannot be read as a video ({problem.strerror})") from problem
            log.warning("%s is damaged after frame %d (%s)", path, count, problem.strerror)
    if not count:
        raise HyError(f"{path} has no frames")


def seek(box: Any, time: float) -> None:
    """Go to the last key frame before a time on the file's clock; a file that can't stays where it is."""
    try:
        box.seek(max(int(time * av.time_base), 0))
    except (av.FFmpegError, OSError):
        log.debug("%s can't be sought", box.name)


def sound(
    path: Path | str,
    rate: int,
    channels: int = 1,
    span: tuple[float, float] | None = None,
    origin: float | None = None,
) -> Iterator[np.ndarray]:
    """Yield the first sound stream in pieces, float32 [channels, n] at `rate` Hz; nothing if there is none.

    The first sample is at the first frame, or at the beginning of `span` (seconds): sound that begins later is
    preceded by zeros. `origin` is the first frame's time on the file's clock, measured if not given. Gaps in the
    file's clock become zeros. Damage ends the sound with a warning; `HyError` for samples that are no numbers.
    """
    path = Path(path)
    if origin is None:
        origin = measure(path).start
    start, stop = span if span else (0.0, np.inf)
    most = np.inf if stop == np.inf else round((stop - start) * rate)
    with open_media(path) as box:
        if not box.streams.audio:
            return
        voice = box.streams.audio[0]
        if start > 1:
            seek(box, origin + start - 1)
        change = av.AudioResampler("fltp", "mono" if channels == 1 else "stereo", rate)
        count, given = (
            None,
            0,
        )  # samples since `start` that came out of the resampler; of these, those yielded
        try:
            for frame in box.decode(voice):
                if frame.time is not None:
                    at = round((frame.time - origin - start) * rate)
                    if count is None:
                        count = at
                        gap = max(min(at, most), 0)
                    else:
                        gap = at - count if _GAP * rate < at - count < _LONGEST_GAP * rate else 0
                        gap, count = max(count + gap, 0) - max(count, 0), count + gap
                    for piece in _zeros(channels, min(gap, most - given)):
                        given += piece.shape[1]
                        yield piece
                count = count or 0
                for part in change.resample(frame):
                    piece = part.to_ndarray()
                    piece, count = piece[:, max(-count, 0) :], count + piece.shape[1]
                    piece = piece[:, : int(min(most - given, piece.shape[1]))]
                    given += piece.shape[1]
                    if piece.shape[1]:
                        yield _sane(piece, path)
                if given >= most:
                    return
            for part in change.resample(None) if given else ():
                piece = part.to_ndarray()[:, : int(min(most - given, part.samples))]
                if piece.shape[1]:
                    yield _sane(piece, path)
        except (av.FFmpegError, OSError, ValueError) as problem:
            log.warning("the sound of %s is damaged (%s)", path, getattr(problem, "strerror", problem))


def _sane(piece: np.ndarray, path: Path) -> np.ndarray:
    # One NaN in the filters behind this would spread over all that follows.
    if not np.isfinite(piece).all():
        raise HyError(f"the sound of {path} has samples that are not numbers (NaN or infinity)")
    return piece


def _zeros(channels: int, count: float, most: int = 1 << 16) -> Iterator[np.ndarray]:
    left = int(count)
    while left > 0:
        yield np.zeros((channels, min(left, most)), np.float32)
        left -= most


@dataclass(frozen=True)
class Sight:
    """How a model looks at a clip: frames a second, and what it makes of one frame, uint8 [H, W, 3]."""

    fps: float
    prepare: Callable[[np.ndarray], Any]

    def instants(self, start: float, stop: float) -> np.ndarray:
        """The moments from `start` to before `stop` that are looked at; at least one."""
        return start + np.arange(max(round((stop - start) * self.fps), 1)) / self.fps


def sound_form(path: Path | str) -> tuple[int, int]:
    """Samples a second and channels (1, or 2 for two and more) of the first sound stream; `HyError` if none."""
    with open_media(Path(path)) as box:
        if not box.streams.audio:
            raise HyError(f"{path} has no sound")
        return int(box.streams.audio[0].rate), min(box.streams.audio[0].channels, 2)
