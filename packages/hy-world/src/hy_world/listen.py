"""Tell from the samples alone what a clip of the world sounds like, and how often that is as it should be.

No learned part. Onsets are jumps of the spectrum; each is compared with the rings of all shapes and sizes, and
the nearest one names the body that was hit. What is like none of them is no impact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from hy_core.errors import MissingError

from hy_world.attributes import SHAPES, SIZES
from hy_world.scene import FPS, FRAMES, Scene
from hy_world.score import Line, Share
from hy_world.sound import RATE, impacts, ring, silent, sound

TOLERANCE = 0.08
"""Seconds by which an impact may be off."""

_QUIET = 10 ** (-50 / 20)  # RMS below which 20 ms are silent
_HOP, _WINDOW, _BANDS = 80, 512, 64  # 5 ms steps of 32 ms
_FLOOR = 1e-5  # power of a band below which there is nothing: about -50 dB of a full sine
_JUMP = 1.6  # dB that all bands rise by on average at an onset
_APART = 0.06  # seconds between two onsets
_RING = 0.25  # seconds of a ring that are compared
_LIKE = 0.75  # least likeness to a ring
_SAME = 0.03  # seconds within which two impacts are heard as one
_SHIFTS = 50  # ways to deal the sounds to the wrong scenes, for the base rate


@dataclass(frozen=True)
class Impact:
    """One impact as it is heard."""

    time: float  # seconds
    shape: str
    size: str


@dataclass(frozen=True)
class Heard:
    """What is heard in a clip."""

    silent: bool
    impacts: tuple[Impact, ...]


def listen(samples: np.ndarray, rate: int = RATE) -> Heard:
    """Describe a sound, float [N] or [channels, N] at `rate` Hz; needs librosa."""
    librosa = _librosa()
    wave = np.atleast_2d(np.asarray(samples, np.float32)).mean(0)
    if rate != RATE:
        wave = librosa.resample(wave, orig_sr=rate, target_sr=RATE)
    if _silent(wave):
        return Heard(True, ())
    power = _spectrum(wave)
    level = 10 * np.log10(np.maximum(power, _FLOOR))
    bands = np.abs(librosa.mel_frequencies(n_mels=_BANDS, fmin=80, fmax=RATE / 2) - 4550) > 600  # no crickets
    strength = librosa.onset.onset_strength(
        S=level[bands], sr=RATE, hop_length=_HOP, lag=3, max_size=3, center=False
    )
    steps = round(_APART * RATE / _HOP)
    peaks = librosa.util.peak_pick(
        strength, pre_max=steps, post_max=steps, pre_avg=5 * steps, post_avg=steps, delta=_JUMP, wait=steps
    )
    heard = []
    for peak in peaks:
        likeness, shape, size = _name(power, int(peak))
        if likeness >= _LIKE:
            heard.append(Impact(int(peak) * _HOP / RATE, shape, size))
    return Heard(False, tuple(heard))


def score_sound(
    scenes: Sequence[Scene],
    sounds: Sequence[np.ndarray],
    frames: int | Sequence[int] = FRAMES,
    fps: float | Sequence[float] = FPS,
    rate: int = RATE,
    seed: int = 0,
) -> list[Line]:
    """Count what can be heard of each scene in the sound that belongs to it, by chance, and in real sound.

    `frames` and `fps` are those of all clips, or of each. By chance: the same sounds dealt to other scenes. Real:
    `sound` of the same scenes, the ceiling. See `score_heard` for the attributes.

    Sounds are mono float32 [n].
    """
    made = [listen(one, rate) for one in sounds]
    return score_heard(scenes, made, hear(scenes, frames, fps, seed), frames, fps)


def hear(
    scenes: Sequence[Scene],
    frames: int | Sequence[int] = FRAMES,
    fps: float | Sequence[float] = FPS,
    seed: int = 0,
) -> list[Heard]:
    """Listen to the real sound of scenes."""
    timed = zip(scenes, *_timing(len(scenes), frames, fps), strict=True)
    return [
        listen(sound(scene, count, rate, seed + index)) for index, (scene, count, rate) in enumerate(timed)
    ]


def score_heard(
    scenes: Sequence[Scene],
    made: Sequence[Heard],
    real: Sequence[Heard],
    frames: int | Sequence[int] = FRAMES,
    fps: float | Sequence[float] = FPS,
) -> list[Line]:
    """Count what was heard of each scene.

    Attributes: "impact", whose rate is the F1 of onsets within `TOLERANCE`, 2 hits / (2 hits + missed + false);
    "size" and "shape", for each impact of a single thing whether pitch and timbre tell it (a missed impact tells
    nothing); "silence" and "sound", whether silent scenes are silent and others not.
    """
    count, made = len(scenes), list(made)
    chance: dict[str, Any] = {}
    shifts = range(1, count) if count <= _SHIFTS else range(1, count, count // _SHIFTS)
    for shift in shifts:
        dealt = made[shift:] + made[:shift]
        for name, share in _tally(dealt, scenes, frames, fps).items():
            before = chance.get(name, Share(0, 0))
            chance[name] = Share(before.right + share.right, before.total + share.total)
    truth = _tally(real, scenes, frames, fps)
    return [
        Line(name, share, chance.get(name, Share(0, 0)).rate, truth[name])
        for name, share in _tally(made, scenes, frames, fps).items()
        if share.total
    ]


def _timing(
    count: int, frames: int | Sequence[int], fps: float | Sequence[float]
) -> tuple[Sequence[int], Sequence[float]]:
    """Frames and rate of each of so many clips."""
    return (
        [frames] * count if isinstance(frames, int) else frames,
        [fps] * count if isinstance(fps, float | int) else fps,
    )


def _tally(
    heard: Sequence[Heard],
    scenes: Sequence[Scene],
    frames: int | Sequence[int],
    fps: float | Sequence[float],
) -> dict[str, Share]:
    hits = wrong = sizes = shapes = single = quiet = still = loud = 0
    timing = _timing(len(scenes), frames, fps)
    for one, scene, count, rate in zip(heard, scenes, *timing, strict=True):
        true = impacts(scene, count, rate)
        moments = [
            time for index, (time, _) in enumerate(true) if not index or time - true[index - 1][0] > _SAME
        ]
        pairs = match_moments([impact.time for impact in one.impacts], moments)
        hits += len(pairs)
        wrong += len(one.impacts) + len(moments) - 2 * len(pairs)
        still += silent(scene, count)
        quiet += silent(scene, count) and one.silent
        loud += not silent(scene, count) and not one.silent
        found = {right: one.impacts[left] for left, right in pairs}
        for index, moment in enumerate(moments):
            things = [thing for time, thing in true if abs(time - moment) <= _SAME]
            if len(things) == 1:
                single += 1
                sizes += index in found and found[index].size == things[0].size
                shapes += index in found and found[index].shape == things[0].shape
    return {
        "impact": Share(2 * hits, 2 * hits + wrong),
        "size": Share(sizes, single),
        "shape": Share(shapes, single),
        "silence": Share(quiet, still),
        "sound": Share(loud, len(scenes) - still),
    }


def match_moments(
    found: Sequence[float], true: Sequence[float], tolerance: float = TOLERANCE
) -> list[tuple[int, int]]:
    """Pair moments, each used once and nearest first, that differ by at most `tolerance`: (found, true)."""
    near = sorted(
        (abs(one - other), left, right)
        for left, one in enumerate(found)
        for right, other in enumerate(true)
        if abs(one - other) <= tolerance
    )
    pairs: list[tuple[int, int]] = []
    for _, left, right in near:
        if all(left != used and right != taken for used, taken in pairs):
            pairs.append((left, right))
    return pairs


def _silent(wave: np.ndarray) -> bool:
    span = RATE // 50
    pieces = wave[: len(wave) // span * span].reshape(-1, span)
    return not len(pieces) or float(np.quantile(np.sqrt((pieces**2).mean(1)), 0.98)) < _QUIET


def _spectrum(wave: np.ndarray) -> np.ndarray:
    """Power in mel bands, [bands, T], of a sine of amplitude 1 about 1; time in steps of 5 ms."""
    power = _librosa().feature.melspectrogram(
        y=wave, sr=RATE, n_fft=_WINDOW, hop_length=_HOP, n_mels=_BANDS, fmin=80, fmax=RATE / 2, norm=None
    )
    return power / (_WINDOW / 4) ** 2


def _name(power: np.ndarray, peak: int) -> tuple[float, str, str]:
    """The ring that is most like the sound from a peak on: its likeness (0..1), shape and size."""
    before = power[:, max(peak - 16, 0) : max(peak - 6, 1)].mean(1, keepdims=True)
    names, rings = _rings()
    length = rings.shape[2]
    best = (0.0, "", "")
    for start in range(max(peak - 6, 0), peak + 2):
        part = power[:, start : start + length]
        part = np.pad(part, ((0, 0), (0, length - part.shape[1])))
        shape = _compressed(np.maximum(part - 2 * before, 0))
        likeness = np.einsum("rbt,bt->r", rings, shape)
        most = int(likeness.argmax())
        best = max(best, (float(likeness[most]), *names[most]))
    return best


def _compressed(power: np.ndarray) -> np.ndarray:
    """A picture of a ring of length 1 in which quiet parts count too."""
    picture = np.maximum(power, 0) ** 0.3
    return picture / max(float(np.sqrt((picture**2).sum())), 1e-9)


@cache
def _rings() -> tuple[list[tuple[str, str]], np.ndarray]:
    """Rings of every shape and of several radii of every size, [R, bands, T], and their (shape, size)."""
    names, rings = [], []
    before = 800
    for shape in SHAPES:
        for size, (low, high) in SIZES.items():
            for radius in np.linspace(low, high, 4):
                wave = np.concatenate([np.zeros(before, np.float32), ring(shape, float(radius), _RING + 0.2)])
                start = before // _HOP - 3
                picture = _spectrum(wave)[:, start : start + round(_RING * RATE / _HOP)]
                names.append((shape, size))
                rings.append(_compressed(np.where(picture > 1e-7, picture, 0)))
    return names, np.stack(rings)


def _librosa() -> Any:
    try:
        import librosa
    except ImportError as error:
        raise MissingError("hearing needs librosa", 'pip install "hy-world[sound]"') from error
    return librosa
