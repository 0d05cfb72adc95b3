"""Loudness as heard (ITU-R BS.1770-4, EBU R 128) and peaks between the samples, of sound in pieces."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Iterator

import numpy as np
from hy_core.errors import MissingError

LUFS = -16.0
"""Usual loudness of sound on the web."""
PEAK = -1.0
"""dBTP; the rest is left to lossy codecs."""

_ABSOLUTE, _RELATIVE = -70.0, -10.0  # gates of BS.1770: LUFS, and LU below what passes the first
_LOOK = 0.02  # seconds that the limiter looks ahead and back
_SPLIT = 4  # points between samples at which peaks are looked for
_EDGE = 64  # samples beside a piece that the interpolation reads
_PIECE = 1 << 16
_SQUEEZE = 12.0  # dB that the limiter may take from the highest peak for the sake of loudness
_QUIET = -50.0  # dBFS of 20 ms


class Meter:
    """Measures integrated loudness piece by piece; equal to pyloudnorm's on the whole.

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
        """Take the next samples, float [channels, n]."""
        from scipy.signal import lfilter

        heard = np.asarray(piece, np.float64)
        for index, (b, a) in enumerate(self.filters):
            heard, self.states[index] = lfilter(b, a, heard, axis=1, zi=self.states[index])
        self.energy += float((heard**2).sum())
        self.count += heard.shape[1]
        heard = np.concatenate([self.rest, heard], axis=1)
        whole = heard.shape[1] // self.step * self.step
        power = (heard[:, :whole] ** 2).sum(0).reshape(-1, self.step).sum(1)
        self.steps += power.tolist()
        self.rest = heard[:, whole:]

    def loudness(self) -> float:
        """LUFS of all so far; -inf for silence."""
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
        meter = meter or Meter(rate, piece.shape[0])
        meter.add(piece)
    return meter.loudness() if meter else -math.inf


def _lufs(power: np.ndarray | float) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return -0.691 + 10 * np.log10(power)


def true_peak(sound: np.ndarray | Iterable[np.ndarray]) -> float:
    """The highest point of the wave between and at the samples, in dBTP (at 4 times as many points).

    `sound` is [channels, n] or its pieces; -inf for silence.
    """
    pieces = [np.atleast_2d(sound)] if isinstance(sound, np.ndarray) else sound
    peak = max((float(part.max(initial=0)) for part in _peaks(pieces)), default=0.0)
    return 20 * math.log10(peak) if peak > 0 else -math.inf


def _peaks(pieces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """For pieces [channels, n]: how high the wave goes at and around every sample, over all channels."""
    from scipy.signal import resample_poly

    for piece, left, right in _with_context(pieces, _EDGE):
        fine = np.abs(resample_poly(piece, _SPLIT, 1, axis=1)).max(0)
        fine = np.maximum(fine, np.roll(fine, 1))
        around = np.pad(fine, _SPLIT // 2, "edge")[: len(fine) + _SPLIT - 1]
        high = np.lib.stride_tricks.sliding_window_view(around, _SPLIT).max(1)[::_SPLIT]
        high = np.maximum(high, np.abs(piece).max(0))
        yield high[left : len(high) - right]


def _with_context(pieces: Iterable[np.ndarray], most: int) -> Iterator[tuple[np.ndarray, int, int]]:
    """Pieces with up to `most` samples of their neighbours on either side: (samples, extra left, extra right)."""
    before: np.ndarray | None = None  # what precedes `held`
    held: np.ndarray | None = None
    for piece in _cut(pieces, max(most, _PIECE)):
        if held is not None:
            past = held[:, :0] if before is None else before[:, -most:]
            ahead = piece[:, :most]
            yield np.concatenate([past, held, ahead], axis=1), past.shape[1], ahead.shape[1]
            before = held
        held = piece
    if held is not None:
        past = held[:, :0] if before is None else before[:, -most:]
        yield np.concatenate([past, held], axis=1), past.shape[1], 0


def _cut(pieces: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The same samples in pieces of `size`, the last with what is left, up to twice as much."""
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


def limited(
    pieces: Iterable[np.ndarray], rate: int, gain: float = 0.0, peak: float = PEAK
) -> Iterator[np.ndarray]:
    """Raise pieces [channels, n] by `gain` dB and hold the true peak at `peak` dBTP.

    The level gives way smoothly, 20 ms before and after a peak, in all channels alike; where nothing is too loud,
    nothing but the gain changes.
    """
    from scipy.ndimage import minimum_filter1d

    look, factor = max(round(_LOOK * rate), 1), 10 ** (gain / 20)
    ceiling = 10 ** ((peak - 0.1) / 20)  # a moving level bends the wave a little
    weights = np.hanning(2 * look + 3)[1:-1]
    weights /= weights.sum()
    context = 2 * look + _EDGE
    for piece, left, right in _with_context(pieces, context):
        piece = np.asarray(piece, np.float32) * np.float32(factor)
        stop = piece.shape[1] - right
        high = next(_peaks([piece])) if piece.shape[1] < _PIECE else np.concatenate(list(_peaks([piece])))
        if float(high.max(initial=0)) <= ceiling:
            yield piece[:, left:stop]
            continue
        level = np.minimum(1, ceiling / np.maximum(high, 1e-9))
        # The least level within reach, averaged over the same reach, is nowhere above what is needed.
        level = minimum_filter1d(level, 2 * look + 1, mode="nearest")
        level = np.convolve(np.pad(level, look, "edge"), weights, "valid")
        yield (piece * level.astype(np.float32))[:, left:stop]


class Spool:
    """Sound on disk, for what is read more than once: float32 [channels, n] in, pieces out."""

    def __init__(self, pieces: Iterable[np.ndarray] = ()) -> None:
        self.file = tempfile.TemporaryFile()
        self.channels = self.count = 0
        for piece in pieces:
            self.add(piece)

    def add(self, piece: np.ndarray) -> None:
        """Append samples."""
        piece = np.atleast_2d(piece)
        self.channels = self.channels or piece.shape[0]
        self.file.write(np.ascontiguousarray(piece.T, np.float32).tobytes())
        self.count += piece.shape[1]

    def __iter__(self) -> Iterator[np.ndarray]:
        """All samples from the beginning."""
        width, at = 4 * max(self.channels, 1), 0
        while at < self.count:
            self.file.seek(at * width)
            data = np.frombuffer(self.file.read(_PIECE * width), np.float32)
            yield data.reshape(-1, self.channels).T
            at += len(data) // self.channels


def normalised(
    sound: Spool, rate: int, lufs: float | None = LUFS, peak: float = PEAK
) -> Iterator[np.ndarray]:
    """Bring sound to `lufs` (None leaves its level), with its true peak at most `peak` dBTP.

    The gain is corrected for what the limiter takes; but the highest peak is pressed down by no more than 12 dB, so
    that the sound between clicks isn't blown up: then the result is quieter than `lufs`.
    What is silent (20 ms nowhere over -50 dBFS) stays as it is.
    """
    gain = 0.0
    if lufs is not None and not is_silent(sound, rate):
        now, most = loudness(sound, rate), peak - true_peak(sound) + _SQUEEZE
        for _ in range(5):
            step = min(lufs - now, most - gain)
            if not math.isfinite(now) or abs(step) < 0.1:
                break
            gain += step
            now = loudness(limited(sound, rate, gain, peak), rate)
    return limited(sound, rate, gain, peak)


def levels(pieces: Iterable[np.ndarray], rate: int) -> np.ndarray:
    """RMS of every 20 ms over all channels, in dBFS, [T]; what is left at the end counts if it is all there is."""
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
    return not (levels(pieces, rate) > _QUIET).any()
