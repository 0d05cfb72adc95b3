"""Read frames and sound of a file by their times, in pieces: nothing here holds a whole clip.

    measure(path)                          how long it is, from its packets alone: an `Extent`
    frame_times(path)                      when its frames begin, from its packets alone
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

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from hy_core.errors import HyError
from hy_core.media.container import audio_stream, open_media, video_stream
from hy_core.media.decoding import Decoder
from hy_core.media.display import to_array
from hy_core.media.names import PICTURES

Span = tuple[float, float]
Crop = tuple[int, int, int, int]

log = logging.getLogger(__name__)

MIN_RATE = 1 / 3600
"""Frames a second: a frame that is shown for longer than an hour is a damaged clock."""
_SLACK = 0.25  # of a frame that a clock may be off
_MAX_DRIFT = 0.5  # frames that a rate may be off at the end of a clip
_SOUND_GAP = 0.05  # seconds that sound may lag behind its clock before silence is put in
_MAX_SOUND_GAP = 60.0  # a clock that jumps further is broken
_SEEK_FROM = 2.0  # seconds that are decoded rather than sought


@dataclass(frozen=True)
class Extent:
    """How long a clip is.

    `start`: of the first frame on the file's own clock, in seconds; `duration`: seconds to the end of the last frame,
    0 without pictures; `frames`: their number; `frame`: mean seconds of a frame; `sounds`: number of sound streams;
    `damage`: why the file breaks off, if it does.
    """

    start: float
    duration: float
    frames: int
    frame: float
    sounds: int
    damage: str | None = None

    @property
    def fps(self) -> float:
        """Mean frames a second; 0 without pictures."""
        return 1 / self.frame if self.frame else 0.0


def measure(path: Path | str) -> Extent:
    """Walk through a file's packets without decoding; `HyError` for a picture and for what can't be opened."""
    times, end, sounds, damage = _packets(Path(path))
    if not times:
        return Extent(0.0, 0.0, 0, 0.0, sounds)
    start, count = min(times), len(times)
    mean = (end - start) / count
    if not 0 < mean * MIN_RATE <= 1:
        raise HyError(f"{path} is damaged: {count} frames in {end - start:.0f} s")
    return Extent(start, end - start, count, mean, sounds, damage)


def frame_times(path: Path | str) -> np.ndarray:
    """Return the times of all frames without decoding, ascending: float64 [F] in seconds from the first."""
    times = np.sort(np.asarray(_packets(Path(path))[0], np.float64))
    return times - times[:1]


def even_rate(path: Path | str) -> float:
    """Return the file's own frames a second: as its header says if that is right for all of it, else their mean."""
    extent = measure(path)
    if not extent.frames:
        raise HyError(f"{path} has no picture stream")
    with open_media(path) as container:
        stated = nominal_rate(video_stream(container, Path(path)))
    off = abs(stated * extent.duration - extent.frames)
    return stated if off < _MAX_DRIFT else extent.fps


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
    path = Path(path)
    start, stop = span or (-math.inf, math.inf)
    found = False
    for time, _, frame, ratio in _decoded(path, start, origin):
        found = True
        if time >= stop:
            break
        if time >= start:
            yield time, _cut(to_array(frame, ratio, size), crop, path)
    if not found:
        raise HyError(f"{path} has no frames")


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
    for time, length, frame, ratio in _decoded(path, begin, origin):
        if moments is None:
            moments = _Moments(fps or own or 1 / length, count, _SLACK * (1 / own if own else length))
        if time >= stop - moments.slack:
            break
        if held is not None:
            for _ in moments.before(time - begin):
                shown = _cut(to_array(held[2], held[3], size), crop, path) if shown is None else shown
                yield shown
        if moments.is_done:
            return
        held, shown = (time, length, frame, ratio), None
    if held is None or moments is None or held[0] + held[1] <= begin:
        raise HyError(f"{path} has no frames" + (f" from {begin:g} s on" if begin > 0 else ""))
    for _ in moments.before(min(held[0] + held[1], stop) - begin):
        shown = _cut(to_array(held[2], held[3], size), crop, path) if shown is None else shown
        yield shown


def sound(
    path: Path | str,
    rate: int,
    channels: int = 1,
    span: Span | None = None,
    *,
    origin: float | None = None,
) -> Iterator[np.ndarray]:
    """Yield the first sound stream in pieces, float32 [channels, n] at `rate` Hz; nothing if there is none.

    The first sample is at the first frame, or at the start of `span`: sound that begins later is preceded by zeros,
    and gaps in its clock become zeros. One channel is the mean of the file's.
    """
    path = Path(path)
    start, stop = span or (0.0, math.inf)
    most = math.inf if stop == math.inf else round((stop - start) * rate)
    with open_media(path) as container:
        voice = audio_stream(container, path)
        if voice is None:
            return
        if origin is None:
            origin = _clock_start(path, container)
        if start > 1:
            _seek(container, (origin or 0.0) + start - 1)
        resampler = _Resampler(rate, channels, path)
        count, yielded = None, 0  # samples since `start` that were resampled; of these, those yielded
        decoder = Decoder(path, container, voice, whole=start <= 1)
        for frame in decoder:
            if frame.time is not None:
                if origin is None:
                    origin = frame.time
                at = round((frame.time - origin - start) * rate)
                if count is None:
                    count, gap = at, max(min(at, most), 0)
                else:
                    gap = at - count if _SOUND_GAP * rate < at - count < _MAX_SOUND_GAP * rate else 0
                    gap, count = max(count + gap, 0) - max(count, 0), count + gap
                for piece in _zeros(channels, min(gap, most - yielded)):
                    yielded += piece.shape[1]
                    yield piece
            count = count or 0
            for piece in resampler.take(frame):
                piece, count = piece[:, max(-count, 0) :], count + piece.shape[1]
                piece = piece[:, : int(min(most - yielded, piece.shape[1]))]
                yielded += piece.shape[1]
                if piece.shape[1]:
                    yield piece
            if yielded >= most:
                return
        for piece in resampler.take(None) if yielded else ():
            piece = piece[:, : int(min(most - yielded, piece.shape[1]))]
            if piece.shape[1]:
                yield piece


def sound_format(path: Path | str) -> tuple[int, int] | None:
    """Return samples a second and channels (1, or 2 for two and more) of the first sound stream, None without one."""
    with open_media(path) as container:
        voice = audio_stream(container, Path(path))
        if voice is None:
            return None
        return int(voice.rate), min(voice.codec_context.layout.nb_channels, 2)


def nominal_rate(video: Any) -> float:
    """Frames a second by a stream's header; 25 if it says nothing sensible."""
    rate = float(video.average_rate or video.guessed_rate or 0)
    return rate if MIN_RATE <= rate <= 1000 else 25.0


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


class _Resampler:
    """Sound frames to float32 [channels, n] at a rate; `HyError` for samples that are not finite."""

    def __init__(self, rate: int, channels: int, path: Path) -> None:
        self.mono, self.path = channels == 1, path
        # Interleaved for the mean of any number of channels: PyAV 18 crashes on eight planes.
        self.change = (
            av.AudioResampler("flt", None, rate) if self.mono else av.AudioResampler("fltp", "stereo", rate)
        )

    def take(self, frame: Any) -> Iterator[np.ndarray]:
        for part in self.change.resample(frame):
            samples = part.to_ndarray()
            if self.mono:
                samples = samples.reshape(-1, part.layout.nb_channels).mean(1, dtype=np.float32)[None]
            if not np.isfinite(samples).all():  # one NaN would spread over all that follows in a filter
                raise HyError(f"the sound of {self.path} has samples that are not numbers (NaN or infinity)")
            yield samples


def _packets(path: Path) -> tuple[list[float], float, int, str | None]:
    """The times of a file's frames on its own clock, the end of the last, the sound streams, and any damage."""
    if path.suffix.lower() in PICTURES:
        raise HyError(f"{path} is a picture, not a clip", "give a video")
    times: list[float] = []
    last, end, damage = -math.inf, 0.0, None
    with open_media(path) as container:
        video, sounds = video_stream(container, path), len(container.streams.audio)
        if video is None:
            return [], 0.0, sounds, None
        usual = 1 / nominal_rate(video)
        try:
            for packet in container.demux(video):
                time = packet.pts if packet.pts is not None else packet.dts
                if time is None or packet.size == 0 or packet.is_discard:
                    continue
                begin = float(time * packet.time_base)
                times.append(begin)
                if begin >= last:
                    last, end = begin, begin + (float((packet.duration or 0) * packet.time_base) or usual)
        except (av.FFmpegError, OSError) as problem:
            damage = str(problem.strerror or problem)
    if not times:
        raise HyError(f"{path} has no frames" + (f" ({damage})" if damage else ""))
    return times, end, sounds, damage


def _decoded(path: Path, start: float, origin: float | None) -> Iterator[tuple[float, float, Any, Any]]:
    """Yield (seconds, seconds shown by the header, frame, pixel ratio) from the key frame before `start` on."""
    with open_media(path) as container:
        video = video_stream(container, path)
        if video is None:
            raise HyError(f"{path} has no picture stream")
        video.thread_type = "AUTO"
        usual, ratio = 1 / nominal_rate(video), video.sample_aspect_ratio
        zero = _start_of(video) if origin is None else origin
        sought = start > _SEEK_FROM and zero is not None and _seek(container, zero + start)
        last, number, size = None, 0, None
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
            number, last = number + 1, time
            yield time - (zero or 0.0), length or usual, frame, ratio
        else:
            return
    for time, length, frame, ratio in _decoded(path, -math.inf, zero):
        if time >= start - length:
            yield time, length, frame, ratio


def _cut(image: np.ndarray, crop: Crop | None, path: Path) -> np.ndarray:
    if crop is None:
        return image
    left, top, right, bottom = crop
    if right > image.shape[1] or bottom > image.shape[0]:
        height, width = image.shape[:2]
        raise HyError(f"{path} is {width}x{height}, too small for the crop {list(crop)}")
    return image[top:bottom, left:right]


def _clock_start(path: Path, container: Any) -> float | None:
    """The time of the first frame on the file's clock, None in a file without pictures."""
    video = video_stream(container, path)
    if video is None:
        return None
    begun = _start_of(video)
    return measure(path).start if begun is None else begun


def _start_of(stream: Any) -> float | None:
    return None if stream.start_time is None else float(stream.start_time * stream.time_base)


def _seek(container: Any, time: float) -> bool:
    """Go to the key frame before a time on the file's clock; False for a file that can't, which stays at its start."""
    try:
        container.seek(max(int(time * av.time_base), 0))
    except (av.FFmpegError, OSError):
        log.debug("%s can't be sought", container.name)
        return False
    return True


def _zeros(channels: int, count: float, most: int = 1 << 16) -> Iterator[np.ndarray]:
    left = int(count)
    while left > 0:
        yield np.zeros((channels, min(left, most)), np.float32)
        left -= most
