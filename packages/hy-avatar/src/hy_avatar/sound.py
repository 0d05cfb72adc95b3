"""The sound of speech files: how long it is, and what of it goes into the clip. Needs no torch."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from hy_core.errors import HyError
from hy_core.media import stream_sound
from hy_core.media.container import open_media
from hy_core.request import Sound

log = logging.getLogger(__name__)

RATE = 16000
"""What the encoders hear."""
MIXED = 48000
"""The rate of a sound that is put together from several."""
CEILING = 0.99
"""The loudest sample of a mix that had to be made softer."""
_REACH = 50  # milliseconds before and after a peak in which a mix is made softer


def check(path: Path) -> None:
    """HyError, in one line, for a file that isn't there, has no sound, is empty or holds NaN or infinity anywhere."""
    seconds(path)


def seconds(path: Path) -> float:
    """How long the sound of a file is, by reading it through, block by block; once as long as the file is the same."""
    about = path.stat() if path.exists() else None
    return _seconds(path, about and (about.st_size, about.st_mtime_ns))


@lru_cache(64)
def _seconds(path: Path, state: Any) -> float:
    return sum(len(block) for block in stream_sound(path, RATE)) / RATE


def until(blocks: Iterable[np.ndarray], count: int) -> Iterator[np.ndarray]:
    """The first `count` samples of a stream of [n]; the rest isn't read."""
    for block in blocks:
        yield block[:count]
        count -= len(block)
        if count <= 0:
            return


def frames_for(length: float, fps: float, group: int = 4) -> int:
    """Frames, one more than a multiple of `group`, that hold so many seconds."""
    return max(math.ceil((length * fps - 1) / group - 1e-9), 0) * group + 1


def track(paths: Sequence[Path], length: float, other: Sound | None = None) -> Sound:
    """The sound of a clip of `length` seconds: the speech of one file as it is, or of several files mixed.

    It is cut or filled up with silence; `other` is a sound that the clip has already, which stays below the speech. Of
    the files no more is read than that. A mix that is louder than full scale is limited, not cut off.
    """
    if len(paths) == 1 and other is None:
        return read(paths[0], length)
    rate = other.rate if other else MIXED
    count = round(length * rate)
    mix = np.zeros((1, count), np.float32) if other is None else fitted(other.samples, count).copy()
    for path in paths:
        at = 0
        for block in until(stream_sound(path, rate), count):
            mix[:, at : at + len(block)] += block
            at += len(block)
    return Sound(limited(mix, rate), rate)


def read(path: Path, length: float) -> Sound:
    """The first `length` seconds of a file at its own rate, one channel or two, filled up with silence.

    HyError for a file without sound or with samples that are no numbers; one that breaks off gives a warning.
    """
    with open_media(path) as box:
        if not box.streams.audio:
            raise HyError(f"{path} has no sound stream")
        voice, at = box.streams.audio[0], 0
        rate, channels = voice.rate, 1 if voice.channels == 1 else 2
        change = av.AudioResampler("fltp", "mono" if channels == 1 else "stereo", rate)
        samples = np.zeros((channels, round(length * rate)), np.float32)
        try:
            for frame in itertools.chain(box.decode(audio=0), [None]):
                for part in change.resample(frame) if frame or at else ():
                    piece = part.to_ndarray()[:, : samples.shape[1] - at]
                    if not np.isfinite(piece).all():
                        raise HyError(
                            f"the sound of {path} has samples that are not numbers (NaN or infinity)"
                        )
                    samples[:, at : at + piece.shape[1]] = piece
                    at += piece.shape[1]
                if at >= samples.shape[1]:
                    break
        except (av.FFmpegError, OSError) as problem:
            log.warning("the sound of %s is damaged (%s)", path, problem.strerror)
    return Sound(samples, rate)


def limited(samples: np.ndarray, rate: int) -> np.ndarray:
    """Samples [channels, n] with peaks of 0.99 at most: softer around those that are louder, all else as it is.

    The gain moves slowly, over 50 ms before and after a peak, so that nothing is heard of it but the level. Each
    millisecond asks for a gain; the least of those around is taken, and the mean of that (a look-ahead limiter).
    """
    if not samples.size or np.abs(samples).max() <= 1:
        return samples
    hop = max(rate // 1000, 1)
    count = -(-samples.shape[1] // hop)
    peaks = (
        np.abs(np.pad(samples, ((0, 0), (0, count * hop - samples.shape[1]))))
        .max(0)
        .reshape(count, hop)
        .max(1)
    )
    asked = np.minimum(1.0, CEILING / np.maximum(peaks, 1e-9))
    # One more to both sides: between the middles of two milliseconds the gain is a mean of theirs.
    least = np.lib.stride_tricks.sliding_window_view(
        np.pad(asked, 2 * _REACH + 1, constant_values=1.0), 2 * (_REACH + 1) + 1
    ).min(1)
    gain = np.convolve(least, np.full(2 * _REACH + 1, 1 / (2 * _REACH + 1)), "valid")
    gain[gain > 1 - 1e-9] = 1  # rounding: what isn't near a peak stays to the bit
    middles = (np.arange(count) + 0.5) * hop
    return (samples * np.interp(np.arange(samples.shape[1]), middles, gain)).astype(np.float32)


def fitted(samples: np.ndarray, count: int) -> np.ndarray:
    """Samples [channels, n] as [channels, count]."""
    return np.pad(samples[:, :count], ((0, 0), (0, max(count - samples.shape[1], 0))))
