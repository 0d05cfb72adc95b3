"""True peaks, a limiter for them, and loudness normalisation, of sound in pieces."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np

from hy_audio.loudness import LUFS, PEAK, is_silent, loudness
from hy_audio.temporary import TemporarySound

_LOOKAHEAD = 0.02  # seconds before and after a peak in which the level is reduced
_OVERSAMPLING = 4
_EDGE = 64  # samples beside a piece that the interpolation needs
_PIECE = 1 << 16
_MAX_REDUCTION = 12.0  # dB of the highest peak by the limiter


def normalise_loudness(
    sound: TemporarySound, rate: int, lufs: float | None = LUFS, peak: float = PEAK
) -> Iterator[np.ndarray]:
    """Yield sound of `lufs` LUFS (None keeps its level) and a true peak of at most `peak` dBTP.

    The gain compensates for the limiter, but the highest peak is reduced by no more than 12 dB, so that noise between
    clicks isn't amplified: such a sound stays quieter than `lufs`. Silence (see `is_silent`) is unchanged.
    """
    gain = 0.0
    if lufs is not None and not is_silent(sound, rate):
        level, max_gain = loudness(sound, rate), peak - true_peak(sound) + _MAX_REDUCTION
        for _ in range(5):
            step = min(lufs - level, max_gain - gain)
            if not math.isfinite(level) or abs(step) < 0.1:
                break
            gain += step
            level = loudness(limit(sound, rate, gain, peak), rate)
    return limit(sound, rate, gain, peak)


def limit(
    pieces: Iterable[np.ndarray], rate: int, gain: float = 0.0, peak: float = PEAK
) -> Iterator[np.ndarray]:
    """Yield pieces [channels, n] amplified by `gain` dB and limited to a true peak of `peak` dBTP.

    The limiter reduces the level of all channels equally and smoothly, 20 ms before and after a peak; elsewhere only
    the gain acts.
    """
    from scipy.ndimage import minimum_filter1d

    reach, factor = max(round(_LOOKAHEAD * rate), 1), 10 ** (gain / 20)
    ceiling = 10 ** ((peak - 0.1) / 20)  # a changing level adds a little to the peaks
    weights = np.hanning(2 * reach + 3)[1:-1]
    weights /= weights.sum()
    context = 2 * reach + _EDGE
    for piece, left, right in _with_context(pieces, context):
        piece = np.asarray(piece, np.float32) * np.float32(factor)
        stop = piece.shape[1] - right
        high = (
            next(_peak_levels([piece]))
            if piece.shape[1] < _PIECE
            else np.concatenate(list(_peak_levels([piece])))
        )
        if float(high.max(initial=0)) <= ceiling:
            yield piece[:, left:stop]
            continue
        level = np.minimum(1, ceiling / np.maximum(high, 1e-9))
        # The least level within reach, averaged over the same reach, is nowhere above the needed level.
        level = minimum_filter1d(level, 2 * reach + 1, mode="nearest")
        level = np.convolve(np.pad(level, reach, "edge"), weights, "valid")
        yield (piece * level.astype(np.float32))[:, left:stop]


def true_peak(sound: np.ndarray | Iterable[np.ndarray]) -> float:
    """Return the true peak in dBTP by 4 times oversampling (ITU-R BS.1770-4, annex 2); -inf for silence.

    `sound`: float [channels, n] or its pieces.
    """
    pieces = [np.atleast_2d(sound)] if isinstance(sound, np.ndarray) else sound
    peak = max((float(part.max(initial=0)) for part in _peak_levels(pieces)), default=0.0)
    return 20 * math.log10(peak) if peak > 0 else -math.inf


def _peak_levels(pieces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield for pieces [channels, n] the highest absolute value at and around each sample over all channels, [n]."""
    from scipy.signal import resample_poly

    for piece, left, right in _with_context(pieces, _EDGE):
        fine = np.abs(resample_poly(piece, _OVERSAMPLING, 1, axis=1)).max(0)
        fine = np.maximum(fine, np.roll(fine, 1))
        around = np.pad(fine, _OVERSAMPLING // 2, "edge")[: len(fine) + _OVERSAMPLING - 1]
        high = np.lib.stride_tricks.sliding_window_view(around, _OVERSAMPLING).max(1)[::_OVERSAMPLING]
        high = np.maximum(high, np.abs(piece).max(0))
        yield high[left : len(high) - right]


def _with_context(pieces: Iterable[np.ndarray], most: int) -> Iterator[tuple[np.ndarray, int, int]]:
    """Pieces with up to `most` samples of their neighbours on either side: (samples, extra left, extra right)."""
    before: np.ndarray | None = None  # the piece before `held`
    held: np.ndarray | None = None
    for piece in _rechunk(pieces, max(most, _PIECE)):
        if held is not None:
            past = held[:, :0] if before is None else before[:, -most:]
            ahead = piece[:, :most]
            yield np.concatenate([past, held, ahead], axis=1), past.shape[1], ahead.shape[1]
            before = held
        held = piece
    if held is not None:
        past = held[:, :0] if before is None else before[:, -most:]
        yield np.concatenate([past, held], axis=1), past.shape[1], 0


def _rechunk(pieces: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The same samples in pieces of `size`, the last of up to twice as many."""
    held: list[np.ndarray] = []
    count = 0
    for piece in pieces:
        held.append(piece)
        count += piece.shape[1]
        if count >= 2 * size:
            whole = np.concatenate(held, axis=1)
            while whole.shape[1] >= 2 * size:
                yield whole[:, :size]
                whole = whole[:, size:]
            held, count = [whole], whole.shape[1]
    if count:
        yield np.concatenate(held, axis=1)
