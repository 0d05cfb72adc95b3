"""Read the sound of a file in pieces, in step with its frames."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np

from hy_core.errors import HyError
from hy_core.media.container import audio_stream, open_media, seek, start_of, video_stream
from hy_core.media.decoding import Decoder
from hy_core.media.extent import measure

_GAP = 0.05  # seconds that sound may lag behind its clock before silence is put in
_MAX_GAP = 60.0  # a clock that jumps further is broken


def sound(
    path: Path | str,
    rate: int,
    channels: int = 1,
    span: tuple[float, float] | None = None,
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
            seek(container, (origin or 0.0) + start - 1)
        resampler = _Resampler(rate, channels)
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
                    gap = at - count if _GAP * rate < at - count < _MAX_GAP * rate else 0
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
                    yield _finite(piece, path)
            if yielded >= most:
                return
        for piece in resampler.take(None) if yielded else ():
            piece = piece[:, : int(min(most - yielded, piece.shape[1]))]
            if piece.shape[1]:
                yield _finite(piece, path)


def _finite(piece: np.ndarray, path: Path) -> np.ndarray:
    if not np.isfinite(piece).all():  # one NaN would spread over all that follows in a filter
        raise HyError(f"the sound of {path} has samples that are not numbers (NaN or infinity)")
    return piece


def sound_format(path: Path | str) -> tuple[int, int] | None:
    """Return samples a second and channels (1, or 2 for two and more) of the first sound stream, None without one."""
    with open_media(path) as container:
        voice = audio_stream(container, Path(path))
        if voice is None:
            return None
        return int(voice.rate), min(voice.codec_context.layout.nb_channels, 2)


class _Resampler:
    """Sound frames to float32 [channels, n] at a rate."""

    def __init__(self, rate: int, channels: int) -> None:
        self.mono = channels == 1
        # Interleaved for the mean of any number of channels: PyAV 18 crashes on eight planes.
        self.change = (
            av.AudioResampler("flt", None, rate) if self.mono else av.AudioResampler("fltp", "stereo", rate)
        )

    def take(self, frame: Any) -> Iterator[np.ndarray]:
        for part in self.change.resample(frame):
            samples = part.to_ndarray()
            if self.mono:
                samples = samples.reshape(-1, part.layout.nb_channels).mean(1, dtype=np.float32)[None]
            yield samples


def _clock_start(path: Path, container: Any) -> float | None:
    """The time of the first frame on the file's clock, None in a file without pictures."""
    video = video_stream(container, path)
    if video is None:
        return None
    begun = start_of(video)
    return measure(path).start if begun is None else begun


def _zeros(channels: int, count: float, most: int = 1 << 16) -> Iterator[np.ndarray]:
    left = int(count)
    while left > 0:
        yield np.zeros((channels, min(left, most)), np.float32)
        left -= most
