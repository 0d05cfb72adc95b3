"""Speech files: their length, and the clip's sound made of them. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from hy_core.errors import HyError
from hy_core.media import stream_sound, timeline
from hy_core.request import Sound

RATE = 16000
"""Samples a second of the encoders' input."""
MIXED = 48000
"""Samples a second of a mix."""
CEILING = 0.99
"""The peak of a limited mix."""
_REACH = 50  # milliseconds before and after a peak in which the gain is lower


def seconds(path: Path) -> float:
    """Return the length of a file's sound; all of it is read, once while the file stays the same.

    HyError for a file that doesn't exist, has no sound, is empty, or has samples that are not finite.
    """
    about = path.stat() if path.exists() else None
    return _seconds(path, about and (about.st_size, about.st_mtime_ns))


@lru_cache(64)
def _seconds(path: Path, state: Any) -> float:
    return sum(len(block) for block in stream_sound(path, RATE)) / RATE


def until(blocks: Iterable[np.ndarray], count: int) -> Iterator[np.ndarray]:
    """Yield the first `count` samples of a stream of pieces [n]; the rest isn't read."""
    for block in blocks:
        yield block[:count]
        count -= len(block)
        if count <= 0:
            return


def frames_for(length: float, fps: float, group: int = 4) -> int:
    """Return the smallest number of frames, one more than a multiple of `group`, that lasts `length` seconds."""
    return max(math.ceil((length * fps - 1) / group - 1e-9), 0) * group + 1


def track(paths: Sequence[Path], length: float, other: Sound | None = None) -> Sound:
    """Return the sound of a clip of `length` seconds: one file's speech as it is, or a mix of several files.

    It is cut or padded with silence; no more of the files is read. `other` is the clip's present sound, mixed below the
    speech. A mix above full scale is limited, not clipped.
    """
    if len(paths) == 1 and other is None:
        return read(paths[0], length)
    rate = other.rate if other else MIXED
    count = round(length * rate)
    mix = np.zeros((1, count), np.float32) if other is None else padded(other.samples, count).copy()
    for path in paths:
        at = 0
        for block in until(stream_sound(path, rate), count):
            mix[:, at : at + len(block)] += block
            at += len(block)
    return Sound(limited(mix, rate), rate)


def read(path: Path, length: float) -> Sound:
    """Return the first `length` seconds of a file at its own rate, one channel or two, padded with silence.

    HyError for a file without sound or with samples that are not finite; one that breaks off gives a warning.
    """
    found = timeline.sound_format(path)
    if found is None:
        raise HyError(f"{path} has no sound stream")
    rate, channels = found
    count = round(length * rate)
    samples, at = np.zeros((channels, count), np.float32), 0
    for piece in timeline.sound(path, rate, channels, (0.0, length)):
        samples[:, at : at + piece.shape[1]] = piece[:, : count - at]
        at += piece.shape[1]
    return Sound(samples, rate)


def limited(samples: np.ndarray, rate: int) -> np.ndarray:
    """Limit samples [channels, n] to peaks of 0.99: a lower gain around peaks above 1, all else unchanged.

    A look-ahead limiter: each millisecond needs a gain, the least within 50 ms is taken and smoothed by a mean.
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
    needed = np.minimum(1.0, CEILING / np.maximum(peaks, 1e-9))
    # One millisecond more on both sides: gains are interpolated between the middles of milliseconds.
    least = np.lib.stride_tricks.sliding_window_view(
        np.pad(needed, 2 * _REACH + 1, constant_values=1.0), 2 * (_REACH + 1) + 1
    ).min(1)
    gain = np.convolve(least, np.full(2 * _REACH + 1, 1 / (2 * _REACH + 1)), "valid")
    gain[gain > 1 - 1e-9] = 1  # rounding: samples far from peaks stay bit-equal
    middles = (np.arange(count) + 0.5) * hop
    return (samples * np.interp(np.arange(samples.shape[1]), middles, gain)).astype(np.float32)


def padded(samples: np.ndarray, count: int) -> np.ndarray:
    """Return samples [channels, n] cut or padded with zeros: [channels, count]."""
    return np.pad(samples[:, :count], ((0, 0), (0, max(count - samples.shape[1], 0))))
