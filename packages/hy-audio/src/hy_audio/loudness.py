"""Integrated loudness (ITU-R BS.1770-4, EBU R 128) and short RMS levels, of sound in pieces."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from hy_core.errors import MissingError

LUFS = -16.0
"""Usual loudness of sound on the web."""
PEAK = -1.0
"""dBTP; lossy codecs may exceed it by a little."""

# Gates of BS.1770: LUFS, and LU below the loudness of the blocks that pass the first.
_ABSOLUTE, _RELATIVE = -70.0, -10.0
_SILENCE = -50.0  # dBFS of 20 ms


class LoudnessMeter:
    """Integrated loudness of sound that comes in pieces; equal to pyloudnorm's on the whole.

    Sound of under 0.4 s, one block of the standard, is measured ungated.
    """

    def __init__(self, rate: int, channels: int) -> None:
        try:
            from pyloudnorm.iirfilter import IIRfilter
        except ImportError as error:
            raise MissingError("loudness needs pyloudnorm", 'pip install "hy-audio"') from error
        shelf, high = (
            IIRfilter(4.0, 1 / math.sqrt(2), 1500.0, rate, "high_shelf"),
            IIRfilter(0.0, 0.5, 38.0, rate, "high_pass"),
        )
        self.filters = [(one.b, one.a) for one in (shelf, high)]
        self.states = [np.zeros((channels, 2)) for _ in self.filters]
        self.step = round(0.1 * rate)  # blocks of 0.4 s begin every 0.1 s
        self.rest = np.zeros((channels, 0))
        self.steps: list[float] = []  # energy of each 0.1 s, summed over channels
        self.energy, self.count = 0.0, 0

    def add(self, piece: np.ndarray) -> None:
        """Add the next samples, float [channels, n]."""
        from scipy.signal import lfilter

        filtered = np.asarray(piece, np.float64)
        for index, (b, a) in enumerate(self.filters):
            filtered, self.states[index] = lfilter(b, a, filtered, axis=1, zi=self.states[index])
        self.energy += float((filtered**2).sum())
        self.count += filtered.shape[1]
        filtered = np.concatenate([self.rest, filtered], axis=1)
        whole = filtered.shape[1] // self.step * self.step
        power = (filtered[:, :whole] ** 2).sum(0).reshape(-1, self.step).sum(1)
        self.steps += power.tolist()
        self.rest = filtered[:, whole:]

    def loudness(self) -> float:
        """Return the LUFS of all samples so far; -inf for silence."""
        steps = np.asarray(self.steps)
        if len(steps) < 4:
            power = np.array([self.energy / self.count]) if self.count else np.zeros(0)
        else:
            power = np.lib.stride_tricks.sliding_window_view(steps, 4).sum(1) / (4 * self.step)
        power = power[_lufs(power) >= _ABSOLUTE]
        if not len(power):
            return -math.inf
        gate = float(_lufs(power.mean())) + _RELATIVE
        return float(_lufs(power[_lufs(power) > gate].mean()))


def loudness(pieces: Iterable[np.ndarray] | np.ndarray, rate: int) -> float:
    """Integrated loudness in LUFS of an array [channels, n] or of its pieces."""
    meter = None
    for piece in [np.atleast_2d(pieces)] if isinstance(pieces, np.ndarray) else pieces:
        meter = meter or LoudnessMeter(rate, piece.shape[0])
        meter.add(piece)
    return meter.loudness() if meter else -math.inf


def _lufs(power: np.ndarray | float) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return -0.691 + 10 * np.log10(power)


def rms_levels(pieces: Iterable[np.ndarray], rate: int) -> np.ndarray:
    """RMS of every 20 ms over all channels, in dBFS, [T]; a shorter rest counts only alone."""
    span, found, held = max(round(0.02 * rate), 1), [], None
    for piece in pieces:
        power = np.square(np.atleast_2d(piece), dtype=np.float64).mean(0)
        power = power if held is None else np.concatenate([held, power])
        whole = len(power) // span * span
        found.append(power[:whole].reshape(-1, span).mean(1))
        held = power[whole:]
    power = np.concatenate(found) if found else np.zeros(0)
    if not len(power) and held is not None and len(held):
        power = np.array([held.mean()])
    return 10 * np.log10(np.maximum(power, 1e-20))


def is_silent(pieces: Iterable[np.ndarray], rate: int) -> bool:
    """Whether no 20 ms are over -50 dBFS."""
    return not (rms_levels(pieces, rate) > _SILENCE).any()
