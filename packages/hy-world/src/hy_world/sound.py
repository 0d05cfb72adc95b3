"""What a scene sounds like: impacts, air that moving things stir, and the place around them.

A thing that hits the floor rings like what its shape is made of, the higher the smaller it is; what moves
hisses with its speed; some backgrounds have a sound of their own. Where nothing sounds, there is silence:
zeros. All of it is 16 kHz, mono, float32, and a function of the scene, its timing and a seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hy_world.scene import EXTENT, FPS, FRAMES, Scene, Thing, Track

RATE = 16000


@dataclass(frozen=True)
class Material:
    """How a body rings: partials as multiples of the lowest, how loud they are, and how long the lowest lasts."""

    name: str
    partials: tuple[float, ...]
    levels: tuple[float, ...]
    decay: float  # seconds to 1/e; higher partials die sooner, by their ratio to the power of `damping`
    damping: float


# The ratios of a free bar (wood), of a bell-like ring (steel) and of a vessel (glass) are inharmonic, those of a
# ball are not; the decays set them further apart.
MATERIALS = {
    "circle": Material("rubber", (1.0, 2.0), (1.0, 0.25), 0.05, 1.0),
    "square": Material("wood", (1.0, 2.76, 5.40), (1.0, 0.6, 0.3), 0.09, 0.6),
    "triangle": Material("steel", (1.0, 1.51, 2.74, 3.76), (0.8, 0.7, 0.8, 0.6), 0.45, 0.2),
    "star": Material("glass", (1.0, 2.32, 4.25, 6.63), (0.5, 0.8, 1.0, 0.7), 0.22, 0.1),
}
AMBIENCES = {"sky": "wind", "sunset": "crickets", "checkerboard": "hum"}  # other backgrounds are silent

_LOWEST, _AT = 400.0, 12 / 64  # Hz, at this radius
_FULL = 0.8  # units a second of an impact that is as loud as can be, and of the loudest air
_HIT, _AIR, _PLACE = 0.5, 0.05, 0.02  # peak of an impact, RMS of the air, RMS of the place
_EDGE = 0.05  # seconds in which what lasts comes and goes
_SPAN = 512  # samples of a window in which noise is shaped


def pitch(radius: float) -> float:
    """The lowest partial of a body, in Hz: it falls with the square of its size, as for plates."""
    return _LOWEST * (_AT / radius) ** 2


def ring(shape: str, radius: float, seconds: float, rng: np.random.Generator | None = None) -> np.ndarray:
    """The sound of one impact, float32 [N] with a peak of 1; `rng` draws its phases and its click."""
    material, count = MATERIALS[shape], round(seconds * RATE)
    time = np.arange(count) / RATE
    phases = (
        np.zeros(len(material.partials))
        if rng is None
        else rng.uniform(0, 2 * math.pi, len(material.partials))
    )
    wave = np.zeros(count)
    for ratio, level, phase in zip(material.partials, material.levels, phases, strict=True):
        frequency = pitch(radius) * ratio
        if frequency < 0.48 * RATE:
            fade = np.exp(-time * ratio**material.damping / material.decay)
            wave += level * fade * np.sin(2 * math.pi * frequency * time + phase)
    wave *= np.minimum(time / 0.001, 1)  # a contact takes a millisecond
    if rng is not None:
        wave += 0.3 * rng.standard_normal(count) * np.exp(-time / 0.002)
    peak = np.abs(wave).max(initial=0)
    return (wave / peak if peak else wave).astype(np.float32)


def impacts(scene: Scene, frames: int = FRAMES, fps: float = FPS) -> list[tuple[float, Thing]]:
    """When something hits the floor, in seconds from the first frame, and what; in order of time."""
    tracks = scene.tracks(frames, *_size(scene))
    hits = [
        (moment / fps, thing)
        for thing, track in zip(scene.things, tracks, strict=True)
        for moment in track.impacts
    ]
    return sorted(hits, key=lambda hit: hit[0])


def silent(scene: Scene, frames: int = FRAMES) -> bool:
    """Whether nothing sounds in the whole scene."""
    moves = frames > 1 and any(thing.motion != "still" for thing in scene.things)
    return scene.background not in AMBIENCES and not moves


def sound(scene: Scene, frames: int = FRAMES, fps: float = FPS, seed: int = 0) -> np.ndarray:
    """Make the sound of a clip of `frames` frames at `fps`: float32 [N] at 16 kHz, N = frames / fps * 16000."""
    count = round(frames / fps * RATE)
    # One stream of numbers for each source: that of one does not change with another.
    place, *others = np.random.default_rng((seed, 77)).spawn(1 + 2 * len(scene.things))
    wave = _ambience(AMBIENCES.get(scene.background), count, place)
    tracks = scene.tracks(frames, *_size(scene))
    for index, (thing, track) in enumerate(zip(scene.things, tracks, strict=True)):
        air, hit = others[2 * index : 2 * index + 2]
        wave += _air(_speed(thing, track, scene, fps), count, fps, air)
        for moment in track.impacts:
            start = round(moment / fps * RATE)
            speed = math.pi * thing.hops * thing.hop * fps / (frames - 1)
            tail = ring(thing.shape, thing.radius, min(2.0, (count - start) / RATE), hit)
            level = _HIT * min(max(speed / _FULL, 0.4), 1.0)
            wave[start : start + len(tail)] += level * tail
    return np.clip(wave, -1, 1).astype(np.float32)


def _size(scene: Scene, unit: int = 1024) -> tuple[int, int]:
    """A frame for the scene, fine enough to measure speeds in: height, width."""
    return round(scene.height * unit), round(scene.width * unit)


def _speed(thing: Thing, track: Track, scene: Scene, fps: float) -> np.ndarray:
    """How fast the fastest point of a thing's outline moves, [T] in units of length a second."""
    if len(track.x) < 2:
        return np.zeros(len(track.x))
    unit = scene.unit(*_size(scene))
    reach = track.radius * EXTENT[thing.shape]
    steps = (
        np.hypot(np.diff(track.x), np.diff(track.y)),
        np.abs(np.diff(track.angle)) * reach[1:],
        np.abs(np.diff(reach)),
    )
    speed = np.sum(steps, axis=0) * fps / unit
    return np.append(speed, speed[-1])


def _air(speed: np.ndarray, count: int, fps: float, rng: np.random.Generator) -> np.ndarray:
    """The hiss of a moving thing: louder and brighter with its speed."""
    if not speed.any():
        return np.zeros(count)
    share = np.interp(_moments(count), (np.arange(len(speed)) + 0.5) / fps, speed) / _FULL
    level, middle = _AIR * np.sqrt(np.minimum(share, 1)), 500 * 2 ** (2 * np.minimum(share, 1))
    frequency = np.fft.rfftfreq(_SPAN, 1 / RATE)[1:]
    shape = np.exp(-0.5 * (np.log2(frequency / middle[:, None]) / 0.6) ** 2)
    return _noise(level, shape, count, rng) * _edges(count)


def _ambience(name: str | None, count: int, rng: np.random.Generator) -> np.ndarray:
    """The sound of a place, without beginning or end."""
    time = np.arange(count) / RATE
    if name == "wind":
        moments = _moments(count)
        gusts = 1 + 0.5 * np.sin(2 * math.pi * 0.4 * moments + rng.uniform(0, 2 * math.pi))
        frequency = np.fft.rfftfreq(_SPAN, 1 / RATE)[1:]
        shape = np.broadcast_to(1 / (1 + (frequency / 250) ** 4), (len(moments), len(frequency)))
        return _noise(_PLACE * gusts, shape, count, rng) * _edges(count)
    if name == "crickets":
        pulses = np.maximum(np.sin(2 * math.pi * 28 * time), 0) * (
            np.sin(2 * math.pi * 1.7 * time + rng.uniform(0, 6)) > 0
        )
        soft = np.convolve(pulses, np.hanning(81) / np.hanning(81).sum(), "same")
        return 2 * _PLACE * soft * np.sin(2 * math.pi * rng.uniform(4400, 4700) * time) * _edges(count)
    if name == "hum":
        tones = sum(np.sin(2 * math.pi * 100 * n * time + rng.uniform(0, 6)) / n for n in (1, 2, 3))
        return 0.6 * _PLACE * tones * _edges(count)
    return np.zeros(count)


def _moments(count: int) -> np.ndarray:
    """The middles of the windows of `_noise`, in seconds."""
    hop = _SPAN // 2
    return np.arange(-(-count // hop) + 1) * hop / RATE


def _noise(level: np.ndarray, shape: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Noise whose RMS is `level` [W] and whose spectrum is `shape` [W, 256] in the windows of `_moments`."""
    hop, windows = _SPAN // 2, len(level)
    white = rng.standard_normal((windows + 1) * hop)
    cut = np.lib.stride_tricks.sliding_window_view(white, _SPAN)[::hop]
    window = np.sin(
        math.pi * (np.arange(_SPAN) + 0.5) / _SPAN
    )  # squared, the halves of neighbours sum to one
    spectrum = np.fft.rfft(cut * window)
    spectrum[:, 1:] *= shape * (level / np.sqrt((shape**2).mean(1)))[:, None]
    spectrum[:, 0] = 0
    pieces = np.fft.irfft(spectrum, _SPAN) * window
    wave = np.zeros((windows + 1) * hop)
    for index, piece in enumerate(pieces):
        wave[index * hop : index * hop + _SPAN] += piece
    return wave[hop : hop + count]


def _edges(count: int) -> np.ndarray:
    """One, but rising from zero and falling to it at the ends."""
    way = np.minimum(np.arange(count) + 0.5, count - np.arange(count) - 0.5) / (_EDGE * RATE)
    return np.minimum(way, 1)
