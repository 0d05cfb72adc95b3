"""Put sound beside the pictures of a file: their packets are copied, the sound is encoded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
from hy_core.errors import HyError, UsageError
from hy_core.files import Existing, Staging, storage_errors
from hy_core.media.container import open_media, video_stream
from hy_core.media.timeline import Extent

from hy_audio.containers import AUDIO_CODECS, RATE, copied_packets, copy_streams, open_output

_BIT_RATE = 96000  # bits a second for each channel
_SILENCE = 1024  # samples of silence that are added at a time
_AHEAD = 0.5  # seconds that sound is written before the pictures
_METADATA = ("title", "comment", "artist", "date", "description", "copyright")


def mux(
    source: Path | str,
    target: Path | str,
    pieces: Iterable[np.ndarray],
    rate: int,
    extent: Extent,
    keep_sound: bool = False,
    existing: Existing = "replace",
) -> Path:
    """Copy the packets of the pictures and subtitles of `source` to `target`, with new sound beside them.

    `pieces`: float32 [channels, n] in [-1, 1] at `rate` Hz, one or two channels, the first sample at the first frame;
    cut or padded with silence to the length of the pictures, that of `extent`. `keep_sound` copies the sound streams of
    `source` too, before the new one. Nothing holds a whole clip; `target` appears complete or not at all. A file that
    breaks off is copied up to there, with a warning. `HyError` for a source without pictures.
    """
    source, target = Path(source), Path(target)
    suffix = target.suffix.lower()
    with open_media(source) as container, Staging(existing) as staging, storage_errors(target):
        temporary = staging.file(target)
        video = video_stream(container, source)
        if video is None:
            raise HyError(f"{source} has no picture stream", "for sound alone, name a .wav or .flac")
        options = {"fflags": "+bitexact"}
        if suffix in (".mp4", ".mov", ".m4v"):
            options["movflags"] = "+faststart"
        try:
            with open_output(temporary, suffix, options) as output:
                copied = copy_streams(container, output, suffix, video, keep_sound)
                pieces = iter(pieces)
                first = next(pieces, np.zeros((1, 0), np.float32))
                sound = _fit(chain([first], pieces), extent.duration, rate)
                encoder = _SoundEncoder(
                    output, AUDIO_CODECS[suffix], first.shape[0], sound, rate, extent.start
                )
                for key, value in container.metadata.items():
                    if key.lower() in _METADATA:
                        output.metadata[key] = value
                for packet in copied_packets(container, list(copied), source):
                    if packet.stream is video:
                        time = packet.dts if packet.dts is not None else packet.pts
                        encoder.write_until(float(time * packet.time_base))
                    packet.stream = copied[packet.stream]
                    output.mux(packet)
                encoder.finish()
        except (av.FFmpegError, OSError) as problem:
            raise HyError(f"cannot write {target}: {problem.strerror or problem}") from problem
    return staging.files[0]


def _fit(pieces: Iterable[np.ndarray], seconds: float, rate: int) -> Iterator[np.ndarray]:
    """Exactly `seconds` of sound: cut, or padded with silence."""
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


class _SoundEncoder:
    """A new sound stream of an output container, encoded in step with the pictures."""

    def __init__(
        self, output: Any, codec: str, channels: int, pieces: Iterator[np.ndarray], rate: int, start: float
    ) -> None:
        """`pieces`: float32 [channels, n] at `rate` Hz; `start`: of the first frame on the clip's clock, in seconds."""
        if channels not in (1, 2):
            raise UsageError(f"sound has one or two channels, not {channels}")
        self.output, self.pieces, self.rate, self.start = output, pieces, rate, start
        self.layout = "mono" if channels == 1 else "stereo"
        self.stream = output.add_stream(codec, rate=RATE, layout=self.layout)
        self.stream.bit_rate = _BIT_RATE * channels
        context = self.stream.codec_context
        context.open()
        self.resampler = av.AudioResampler(
            context.format, self.layout, RATE, frame_size=context.frame_size or None
        )
        self.taken = 0  # samples at `rate`
        self.offset, self.encoded = round(start * RATE), 0  # samples at RATE

    def write_until(self, time: float) -> None:
        """Write the sound up to half a second after a moment, in seconds on the clip's clock."""
        while self.taken < (time - self.start + _AHEAD) * self.rate:
            piece = next(self.pieces, None)
            if piece is None:
                return
            self._write(piece)

    def finish(self) -> None:
        """Write what is left of the sound."""
        for piece in self.pieces:
            self._write(piece)
        self._encode(self.resampler.resample(None))
        self.output.mux(self.stream.encode(None))

    def _write(self, piece: np.ndarray) -> None:
        samples = np.ascontiguousarray(np.clip(piece, -1, 1), np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=self.layout)
        frame.sample_rate, frame.pts, frame.time_base = self.rate, self.taken, Fraction(1, self.rate)
        self.taken += piece.shape[1]
        self._encode(self.resampler.resample(frame))

    def _encode(self, frames: Iterable[av.AudioFrame]) -> None:
        for frame in frames:
            frame.pts, frame.time_base = self.offset + self.encoded, Fraction(1, RATE)
            self.encoded += frame.samples
            self.output.mux(self.stream.encode(frame))
