"""Made sounds whose kind is known: music on a scale, and what is none. All float32 [N] at 16 kHz."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

RATE = 16000


def note(seconds: float, hertz: float, overtones: int = 6, decay: float = 2.0) -> np.ndarray:
    """A note with overtones that dies away."""
    time = np.arange(round(seconds * RATE)) / RATE
    wave = sum(np.sin(2 * np.pi * hertz * k * time) / k for k in range(1, overtones + 1) if hertz * k < 7500)
    return wave * np.exp(-decay * time) * np.minimum(time / 0.01, 1) * np.minimum((time[-1] - time) / 0.01, 1)


def _tempered(step: float) -> float:
    return 220 * 2 ** (step / 12)


def melody(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Notes of a major scale, one after the other."""
    length, key = rng.uniform(0.25, 0.5), rng.uniform(0, 12)
    steps = rng.choice([0, 2, 4, 5, 7, 9, 11, 12], round(seconds / length) + 1)
    return np.concatenate([note(length, _tempered(key + step), int(rng.integers(2, 8))) for step in steps])


def chords(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Triads that follow one another."""
    length, key, parts = rng.uniform(0.5, 2.0), rng.uniform(-5, 5), []
    for _ in range(round(seconds / length) + 1):
        root = key + rng.choice([0, 5, 7, 9])
        parts.append(sum(note(length, _tempered(root + step), 4, 0.7) for step in (0, rng.choice([3, 4]), 7)))
    return np.concatenate(parts)


def band(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Chords with a regular beat of noise and a deep drum."""
    wave, beat = chords(rng, seconds)[: round(seconds * RATE)], round(rng.uniform(0.35, 0.6) * RATE)
    for number, at in enumerate(range(0, len(wave), beat)):
        rest = np.arange(min(round(0.15 * RATE), len(wave) - at)) / RATE
        drum = np.sin(2 * np.pi * 70 * rest) if number % 2 == 0 else rng.standard_normal(len(rest))
        wave[at : at + len(rest)] += 1.5 * drum * np.exp(-25 * rest)
    return wave


def noise(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Rain, wind, surf: noise that falls towards the treble, and swells."""
    count = round(seconds * RATE)
    spectrum = np.fft.rfft(rng.standard_normal(count))
    spectrum *= np.maximum(np.arange(len(spectrum)), 30.0) ** -rng.uniform(0, 1.5)
    swell = 1 + 0.6 * np.sin(2 * np.pi * rng.uniform(0.1, 1) * np.arange(count) / RATE)
    return np.fft.irfft(spectrum, count) * swell


def hum(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """A motor: one steady tone with overtones, and some noise."""
    time, hertz = np.arange(round(seconds * RATE)) / RATE, rng.uniform(70, 300)
    wave = sum(rng.uniform(0.2, 1) * np.sin(2 * np.pi * k * hertz * time) for k in range(1, 9))
    return wave + 0.1 * rng.standard_normal(len(time))


def siren(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """A tone that goes up and down."""
    time = np.arange(round(seconds * RATE)) / RATE
    pitch = rng.uniform(600, 1000) * 2 ** (0.5 * np.sin(2 * np.pi * rng.uniform(0.3, 2) * time))
    return np.sin(2 * np.pi * np.cumsum(pitch) / RATE) + 0.3 * np.sin(4 * np.pi * np.cumsum(pitch) / RATE)


def beeps(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """One tone that comes and goes: a lorry that backs."""
    time = np.arange(round(seconds * RATE)) / RATE
    tone = note(seconds, rng.uniform(500, 1500), 4, 0.0)
    return tone * ((time / rng.uniform(0.3, 1.0)) % 1 < 0.5) + 0.01 * rng.standard_normal(len(time))


def clicks(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Steps, a keyboard: short noises at uneven moments."""
    wave = 0.002 * rng.standard_normal(round(seconds * RATE))
    for at in rng.integers(0, len(wave) - 2000, round(4 * seconds)):
        wave[at : at + 1500] += rng.standard_normal(1500) * np.exp(-np.arange(1500) / rng.uniform(50, 400))
    return wave


def struck(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Things that are hit: partials anywhere, which die away."""
    wave = 0.002 * rng.standard_normal(round(seconds * RATE))
    for at in rng.integers(0, len(wave) // 2, 2):
        time = np.arange(len(wave) - at) / RATE
        for hertz in rng.uniform(200, 3500, 5):
            wave[at:] += (
                rng.uniform(0.2, 1) * np.sin(2 * np.pi * hertz * time) * np.exp(-rng.uniform(3, 12) * time)
            )
    return wave


def both(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Music and another sound as loud."""
    music, other = chords(rng, seconds)[: round(seconds * RATE)], noise(rng, seconds)
    return music / music.std() + other / other.std()


MUSIC: tuple[Callable, ...] = (melody, chords, band)
OTHER: tuple[Callable, ...] = (noise, hum, siren, beeps, clicks, struck)


def made(kind: Callable, seed: int, seconds: float = 2.0) -> np.ndarray:
    """A take of a kind of sound."""
    wave = kind(np.random.default_rng(seed), seconds)[: round(seconds * RATE)]
    return (0.3 * wave / np.abs(wave).max()).astype(np.float32)
