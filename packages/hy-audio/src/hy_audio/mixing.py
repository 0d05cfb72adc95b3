"""Channels, rates and the mix of sounds in pieces: float32 [channels, n]."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np

from hy_audio.loudness import is_silent, loudness
from hy_audio.temporary import TemporarySound


def convert_channels(pieces: Iterable[np.ndarray], channels: int | None) -> Iterator[np.ndarray]:
    """Yield pieces [any, n] as [channels, n]: one channel is the mean; None keeps one or two."""
    for piece in pieces:
        if channels == 1 or (channels is None and piece.shape[0] > 2):
            piece = piece.mean(0, keepdims=True)
        elif channels == 2 and piece.shape[0] != 2:
            piece = np.repeat(piece.mean(0, keepdims=True), 2, axis=0)
        yield piece


def resample(pieces: Iterable[np.ndarray], rate: int, target: int) -> Iterator[np.ndarray]:
    """Yield pieces [channels, n] at `rate` Hz at `target` Hz."""
    import soxr

    resampler = None
    for piece in pieces:
        if resampler is None:
            resampler = soxr.ResampleStream(rate, target, piece.shape[0], dtype="float32")
        yield resampler.resample_chunk(np.ascontiguousarray(piece.T)).reshape(-1, piece.shape[0]).T
    if resampler is not None:
        last = resampler.resample_chunk(np.zeros((0, piece.shape[0]), np.float32), last=True)
        yield last.reshape(-1, piece.shape[0]).T


def mix(new: TemporarySound, old: TemporarySound, rate: int, balance: float = 0.0) -> Iterator[np.ndarray]:
    """Add two sounds at one rate, `new` louder than `old` by `balance` LU, over the length of the new one."""
    gain = 1.0
    if not is_silent(new, rate) and not is_silent(old, rate):
        change = loudness(old, rate) - loudness(new, rate) + balance
        gain = 10 ** (change / 20) if math.isfinite(change) else 1.0
    rest, below = iter(old), np.zeros((max(new.channels, 1), 0), np.float32)
    for piece in new:
        while below.shape[1] < piece.shape[1] and (more := next(rest, None)) is not None:
            below = np.concatenate([below, more], axis=1)
        part, below = below[:, : piece.shape[1]], below[:, piece.shape[1] :]
        part = np.pad(part, ((0, 0), (0, piece.shape[1] - part.shape[1])))
        yield piece * np.float32(gain) + part
