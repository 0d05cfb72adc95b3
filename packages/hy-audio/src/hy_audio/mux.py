"""Put sound beside the pictures of a file without touching them, or into a file of its own."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from hy_core.errors import HyError, MissingError, UsageError
from hy_core.files import atomic, check_writable
from hy_core.media.container import open_media

from hy_audio.reading import Extent, picture_stream

log = logging.getLogger(__name__)

SOUNDS = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16")}
VIDEOS = {".mp4": "aac", ".mov": "aac", ".m4v": "aac", ".mkv": "aac", ".webm": "libopus"}
EXISTING = ("replace", "keep", "mix")

_RATE = 48000  # of compressed sound: any player plays it, and its frames are shorter than those of pictures
_BITS = 96000  # a second for each channel
_SILENCE = 1024
_MOST_WAV = (1 << 32) - 4096


def check_target(path: Path | str, source: Path | str | None = None) -> None:
    """Raise `UsageError` now if sound could not be written to `path` later."""
    path = Path(path)
    if path.suffix.lower() not in (*VIDEOS, *SOUNDS):
        kind = path.suffix or "a name without suffix"
        raise UsageError(f"{path}: can't write {kind}", f"use one of {' '.join([*VIDEOS, *SOUNDS])}")
    if source is not None and path.exists() and path.samefile(source):
        raise UsageError(f"{path} is the clip itself", "give another name with -o")
    check_writable(path)


def write_sound(path: Path | str, pieces: Iterable[np.ndarray], rate: int) -> Path:
    """Write WAV or FLAC of 16 bits from pieces, float32 [channels, n]; the file appears when it is whole."""
    path = Path(path)
    try:
        import soundfile
    except ImportError as error:
        raise MissingError("WAV and FLAC need soundfile", 'pip install "hy-audio"') from error
    form, kind = SOUNDS[path.suffix.lower()]
    out, written = None, 0
    with atomic(path) as temporary:
        try:
            for piece in pieces:
                if out is None:
                    out = soundfile.SoundFile(str(temporary), "w", rate, piece.shape[0], kind, format=form)
                written += 2 * piece.size
                if form == "WAV" and written > _MOST_WAV:
                    raise HyError(f"{path}: a WAV holds 4 GB at most", "name a .flac")
                out.write(np.clip(piece.T, -1, 1))
        except (OSError, soundfile.LibsndfileError) as problem:
            raise HyError(f"cannot write {path}: {problem}") from problem
        finally:
            if out is not None:
                out.close()
        if out is None:
            raise UsageError(f"no sound to write to {path}")
    return path


def mux(
    source: Path | str,
    target: Path | str,
    pieces: Iterable[np.ndarray],
    rate: int,
    extent: Extent,
    keep: bool = False,
) -> Path:
    """Copy the packets of the pictures (and subtitles) of `source` to `target` with new sound beside them.

    pieces: float32 [channels, n] at `rate` Hz, one or two channels, the first sample at the first frame; cut or
    filled with silence to the length of the pictures. `keep` copies the sound streams of `source` too, before the
    new one. Everything passes through in the order of time and nothing is held; `target` appears when it is
    whole. A file that breaks off is copied up to there.
    """
    source, target = Path(source), Path(target)
    codec = VIDEOS[target.suffix.lower()]
    with open_media(source) as box, atomic(target) as temporary:
        video = picture_stream(box)
        if video is None:
            raise HyError(f"{source} has no picture stream", "for sound alone, name a .wav or .flac")
        flags = {"movflags": "+faststart"} if codec == "aac" and target.suffix.lower() != ".mkv" else {}
        try:
            with av.open(f"file:{temporary}", "w", options=flags) as out:
                copied = _streams(box, out, video, keep, target)
                pieces = iter(pieces)
                first = next(pieces, np.zeros((1, 0), np.float32))
                voice = _Voice(
                    out, codec, _fit(_chain(first, pieces), extent.duration, rate), rate, extent.start
                )
                for key, value in box.metadata.items():
                    if key.lower() in ("title", "comment", "artist", "date", "description", "copyright"):
                        out.metadata[key] = value
                voice.open(first.shape[0])
                for packet in _packets(box, list(copied), source):
                    if packet.stream is video:
                        time = packet.dts if packet.dts is not None else packet.pts
                        voice.until(float(time * packet.time_base))
                    packet.stream = copied[packet.stream]
                    out.mux(packet)
                voice.finish()
        except (av.FFmpegError, OSError) as problem:
            raise HyError(f"cannot write {target}: {problem.strerror or problem}") from problem
    return target


def _streams(box: Any, out: Any, video: Any, keep: bool, target: Path) -> dict[Any, Any]:
    """Streams of the source to those of the target that they are copied to."""
    name = video.codec_context.name
    try:
        copied = {video: out.add_stream_from_template(video)}
        if out.format.name == "webm" and name not in (
            "vp8",
            "vp9",
            "av1",
            "libdav1d",
            "libvpx",
            "libvpx-vp9",
        ):
            raise ValueError(name)
    except (ValueError, av.FFmpegError) as problem:
        raise UsageError(f"{target.suffix} holds no {name} pictures", "name a .mkv or .mp4") from problem
    others = [*(box.streams.audio if keep else ()), *box.streams.subtitles]
    for stream in others:
        try:
            copied[stream] = out.add_stream_from_template(stream)
        except (ValueError, av.FFmpegError):
            log.warning("%s holds no %s: that stream was left out", target.suffix, stream.codec_context.name)
    return copied


def _packets(box: Any, streams: list[Any], source: Path) -> Iterator[Any]:
    """The packets to copy; damage ends them with a warning."""
    count = 0
    try:
        for packet in box.demux(streams):
            if packet.size == 0:
                continue  # the end of a stream
            if packet.dts is None and packet.pts is None:
                raise HyError(f"{source} does not say when its frames are shown", "convert it to MP4 first")
            count += 1
            yield packet
    except (av.FFmpegError, OSError) as problem:
        if not count:
            raise
        log.warning("%s is damaged (%s): it was copied up to there", source, problem.strerror)


def _chain(first: np.ndarray, rest: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    yield from rest


def _fit(pieces: Iterable[np.ndarray], seconds: float, rate: int) -> Iterator[np.ndarray]:
    """Exactly `seconds` of sound: cut, or filled with silence."""
    left, channels = round(seconds * rate), 1
    for piece in pieces:
        channels = piece.shape[0]
        piece = piece[:, :left]
        left -= piece.shape[1]
        if piece.shape[1]:
            yield piece
        if left <= 0:
            return
    while left > 0:
        yield np.zeros((channels, min(left, _SILENCE)), np.float32)
        left -= min(left, _SILENCE)


class _Voice:
    """A stream of compressed sound that is written in step with the pictures."""

    def __init__(self, out: Any, codec: str, pieces: Iterator[np.ndarray], rate: int, start: float) -> None:
        self.out, self.codec, self.pieces, self.rate, self.start = out, codec, pieces, rate, start
        self.given = 0  # samples at `rate` that went in

    def open(self, channels: int) -> None:
        if channels not in (1, 2):
            raise UsageError(f"sound has one or two channels, not {channels}")
        self.layout = "mono" if channels == 1 else "stereo"
        self.stream = self.out.add_stream(self.codec, rate=_RATE, layout=self.layout)
        self.stream.bit_rate = _BITS * channels
        context = self.stream.codec_context
        context.open()
        self.change = av.AudioResampler(
            context.format, self.layout, _RATE, frame_size=context.frame_size or None
        )
        self.offset, self.sent = round(self.start * _RATE), 0

    def until(self, time: float) -> None:
        """Write the sound up to half a second after a moment on the clip's clock."""
        while self.given < (time - self.start + 0.5) * self.rate:
            piece = next(self.pieces, None)
            if piece is None:
                return
            self.put(piece)

    def put(self, piece: np.ndarray) -> None:
        samples = np.ascontiguousarray(np.clip(piece, -1, 1), np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=self.layout)
        frame.sample_rate, frame.pts, frame.time_base = self.rate, self.given, Fraction(1, self.rate)
        self.given += piece.shape[1]
        self.encode(self.change.resample(frame))

    def encode(self, frames: Iterable[Any]) -> None:
        for frame in frames:
            frame.pts, frame.time_base = self.offset + self.sent, Fraction(1, _RATE)
            self.sent += frame.samples
            self.out.mux(self.stream.encode(frame))

    def finish(self) -> None:
        for piece in self.pieces:
            self.put(piece)
        self.encode(self.change.resample(None))
        self.out.mux(self.stream.encode(None))
