"""The sound of speech files: how long it is, and what of it goes into the clip. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from hy_core.media import read_sound, stream_sound
from hy_core.request import Sound

RATE = 16000
"""What the encoders hear."""
MIXED = 48000
"""The rate of a sound that is put together from several."""
PIECE = 1.0
"""Seconds that are read of a file to see whether it is one."""


def check(path: Path) -> None:
    """HyError, in one line, for a file that isn't there, has no sound, is empty or begins with NaN."""
    read = 0
    for block in stream_sound(path, RATE):
        read += len(block)
        if read >= PIECE * RATE:
            return


def seconds(path: Path) -> float:
    """How long the sound of a file is, by reading it through."""
    return sum(len(block) for block in stream_sound(path, RATE)) / RATE


def frames_for(length: float, fps: float, group: int = 4) -> int:
    """Frames, one more than a multiple of `group`, that hold so many seconds."""
    return max(math.ceil((length * fps - 1) / group - 1e-9), 0) * group + 1


def track(paths: Sequence[Path], length: float, other: Sound | None = None) -> Sound:
    """The sound of a clip of `length` seconds: the speech of one file as it is, or of several files mixed.

    It is cut or filled up with silence; `other` is a sound that the clip has already, which stays below the speech.
    """
    if len(paths) == 1 and other is None:
        sound = read_sound(paths[0])
        if sound is not None:
            return Sound(fitted(sound.samples, round(length * sound.rate)), sound.rate)
    rate = other.rate if other else MIXED
    count = round(length * rate)
    mix = np.zeros((1, count), np.float32) if other is None else fitted(other.samples, count).copy()
    for path in paths:
        parts = list(stream_sound(path, rate))
        mix += fitted(np.concatenate(parts)[None], count)
    return Sound(np.clip(mix, -1, 1), rate)


def fitted(samples: np.ndarray, count: int) -> np.ndarray:
    """Samples [channels, n] as [channels, count]."""
    return np.pad(samples[:, :count], ((0, 0), (0, max(count - samples.shape[1], 0))))
