"""Does a sound happen when something happens in the picture? Told from onsets and motion, without weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hy_core.media import timeline

RATE = 16000
TOLERANCE = 0.1
"""Seconds between an onset and a motion that belong together; half a frame is added to it."""
SIZE = (48, 48)
"""Height and width of the pictures whose motion is measured."""

_HOP, _BANDS, _MIN_POWER = 160, 64, 1e-6
_STEP = _HOP / RATE  # of all curves: 10 ms
_ONSET_RISE = 1.5  # dB that the bands rise by on average at an onset
_MIN_GAP = 0.08  # seconds between two onsets
_MIN_CHANGE = 0.25  # of 255: mean change of a picture between frames below which nothing moves
_MAX_OFFSET = 1.0  # seconds of offset that are tried
_CHUNK = 30.0  # seconds of sound that are analysed at once


@dataclass(frozen=True)
class SyncScore:
    """How sound and picture agree.

    `onsets`, `motions`: how many there are; `matched`: pairs of them within the tolerance; `offset`: seconds by which
    the sound is late, NaN where one of them is steady; `correlation`: of the curves at that offset, 0 to 1.
    """

    onsets: int
    motions: int
    matched: int
    offset: float
    correlation: float

    @property
    def f1(self) -> float:
        """2 matched / (onsets + motions); NaN if there are neither."""
        return 2 * self.matched / (self.onsets + self.motions) if self.onsets + self.motions else math.nan

    @property
    def iou(self) -> float:
        """matched / all, the AV-Align score (Yariv et al. 2023) over frame differences in place of flow."""
        every = self.onsets + self.motions - self.matched
        return self.matched / every if every else math.nan


@dataclass(frozen=True)
class Curve:
    """Strength every 10 ms from the first frame on, and the moments (seconds) at which it peaks."""

    strength: np.ndarray
    peaks: np.ndarray


def onset_curve(pieces: Iterable[np.ndarray], rate: int = RATE) -> Curve:
    """Where sounds begin, from float32 [channels, n] in pieces at `rate` Hz; jumps of the mel spectrum."""
    import librosa

    curves = []
    for wave in _chunks(pieces, round(_CHUNK * rate)):
        wave = wave if rate == RATE else librosa.resample(wave, orig_sr=rate, target_sr=RATE)
        power = librosa.feature.melspectrogram(
            y=np.pad(wave, (0, max(1024 - len(wave), 0))),
            sr=RATE, n_fft=512, hop_length=_HOP, n_mels=_BANDS, norm=None,
        ) / 128**2  # fmt: skip
        level = 10 * np.log10(np.maximum(power, _MIN_POWER))
        strength = librosa.onset.onset_strength(
            S=level, sr=RATE, hop_length=_HOP, lag=2, max_size=3, center=False
        )
        # Of frames that overlap the next chunk's first one is kept.
        curves.append(strength[: -(-len(wave) // _HOP)])
    strength = np.concatenate(curves) if curves else np.zeros(0)
    apart = round(_MIN_GAP / _STEP)
    peaks = (
        librosa.util.peak_pick(
            strength,
            pre_max=apart,
            post_max=apart,
            pre_avg=3 * apart,
            post_avg=apart,
            delta=_ONSET_RISE,
            wait=apart,
        )
        if len(strength)
        else np.zeros(0, int)
    )
    return Curve(
        strength, peaks[peaks * _STEP > _MIN_GAP] * _STEP
    )  # the beginning of a recording is no event


def motion_curve(frames: Iterable[tuple[float, np.ndarray]], duration: float) -> Curve:
    """When a picture moves most, from (seconds, small frame uint8 [h, w, 3]).

    A hit is where a motion is fastest and turns or ends: a peak of the change between frames. Cuts are peaks too.
    """
    times, changes, before = [], [], None
    for time, frame in frames:
        image = frame.astype(np.float32)
        if before is not None and time > before[0]:
            step = time - before[0]
            times.append(before[0] + step / 2)
            changes.append(float(np.abs(image - before[1]).mean()))
        before = (time, image)
    grid = np.arange(max(round(duration / _STEP), 0)) * _STEP
    if not changes or max(changes) < _MIN_CHANGE:
        return Curve(np.zeros(len(grid)), np.zeros(0))
    step = float(np.median(np.diff(times))) if len(times) > 1 else duration
    curve = np.interp(grid, times, changes)
    width = max(round(step / _STEP), 1)
    window = np.hanning(2 * width + 3)[1:-1]
    curve = np.convolve(np.pad(curve, width, "edge"), window / window.sum(), "valid")[: len(grid)]
    from scipy.signal import find_peaks

    peaks, _ = find_peaks(
        curve, prominence=max(0.15 * float(np.ptp(curve)), _MIN_CHANGE / 2), distance=2 * width
    )
    steady = float(curve.max() - curve.min()) < 0.3 * float(curve.max())
    return Curve(curve, np.zeros(0) if steady else peaks * _STEP)


def score_sync(sound: Curve, picture: Curve, tolerance: float = TOLERANCE, frame: float = 0.0) -> SyncScore:
    """Compare the onsets of a sound with the motion of a picture whose frames last `frame` seconds."""
    matched = count_matches(sound.peaks, picture.peaks, tolerance + frame / 2)
    offset, correlation = _offset(sound.strength, picture)
    return SyncScore(len(sound.peaks), len(picture.peaks), matched, offset, correlation)


def score_clip(
    path: Path | str, span: tuple[float, float] | None = None, tolerance: float = TOLERANCE
) -> SyncScore | None:
    """Measure a clip in a file, or a span of it in seconds; None if it has no sound."""
    extent = timeline.measure(path)
    start, stop = span or (0.0, extent.duration)
    if not extent.sounds:
        return None
    heard = onset_curve(timeline.sound(path, RATE, 1, (start, stop), origin=extent.start))
    frames = (
        (time - start, image)
        for time, image in timeline.frames(path, (start, stop), size=SIZE, origin=extent.start)
    )
    return score_sync(heard, motion_curve(frames, stop - start), tolerance, extent.frame)


def count_matches(
    found: Sequence[float] | np.ndarray, true: Sequence[float] | np.ndarray, tolerance: float
) -> int:
    """How many moments can be paired within `tolerance`, each used once (both in order)."""
    count = left = right = 0
    found, true = np.sort(found), np.sort(true)
    while left < len(found) and right < len(true):
        gap = found[left] - true[right]
        if abs(gap) <= tolerance:
            count, left, right = count + 1, left + 1, right + 1
        elif gap < 0:
            left += 1
        else:
            right += 1
    return count


def _offset(strength: np.ndarray, picture: Curve) -> tuple[float, float]:
    """By how many seconds the sound is late, and how well the curves then agree."""
    count = min(len(strength), len(picture.strength))
    if not count or not len(picture.peaks) or not (strength > _ONSET_RISE).any():
        return math.nan, 0.0
    sound = np.maximum(strength[:count] - _ONSET_RISE, 0)
    # SegmentLabels of motion, as wide as the tolerance: how large a motion is says little about how loud it is.
    distance = _nearest(np.arange(count) * _STEP, picture.peaks)
    moves = np.maximum(1 - distance / (2 * TOLERANCE), 0)
    moves, wave = moves - moves.mean(), sound - sound.mean()
    power = math.sqrt(float((moves**2).sum() * (wave**2).sum()))
    if power <= 0:
        return math.nan, 0.0
    size = 1 << (2 * count - 1).bit_length()
    both = np.fft.irfft(np.fft.rfft(wave, size) * np.conj(np.fft.rfft(moves, size)), size) / power
    reach = min(round(_MAX_OFFSET / _STEP), count - 1)
    lags = np.arange(-reach, reach + 1)
    best = int(np.argmax(both[lags] - 1e-6 * np.abs(lags)))
    return float(lags[best]) * _STEP, float(np.clip(both[lags[best]], 0, 1))


def _nearest(times: np.ndarray, peaks: np.ndarray) -> np.ndarray:
    """How far it is from each time to the nearest peak, both in order, peaks not empty."""
    # Not a table of all times and all peaks: that of two hours has 5 billion entries.
    after = np.searchsorted(peaks, times)
    left, right = peaks[np.maximum(after - 1, 0)], peaks[np.minimum(after, len(peaks) - 1)]
    return np.minimum(np.abs(times - left), np.abs(times - right))


def _chunks(pieces: Iterable[np.ndarray], size: int) -> Iterable[np.ndarray]:
    """Mono pieces of `size` samples, the last with what is left."""
    held, count = [], 0
    for piece in pieces:
        held.append(np.atleast_2d(piece).mean(0))
        count += held[-1].size
        if count >= size:
            whole = np.concatenate(held)
            while len(whole) >= size:
                yield whole[:size]
                whole = whole[size:]
            held, count = [whole], len(whole)
    if count:
        yield np.concatenate(held)
