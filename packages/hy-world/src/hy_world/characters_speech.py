"""Speech that drives characters: espeak-ng's voice where it is installed, synthetic vowels everywhere.

The truth is the mouth's opening in each frame: the sound's level in a window around the frame.
"""

from __future__ import annotations

import io
import math
import shutil
import subprocess
import wave

import numpy as np
from hy_core.errors import HyError, MissingError, UsageError

RATE = 16_000
SOURCES = ("vowels", "espeak", "auto")
_VOWELS: dict[str, tuple[float, float, float]] = {  # formants in Hz (Peterson and Barney 1952, rounded)
    "a": (730, 1090, 2440),
    "e": (530, 1840, 2480),
    "i": (270, 2290, 3010),
    "o": (570, 840, 2410),
    "u": (300, 870, 2240),
}
_CURVE_RATE = 100  # of loudness curves, per second
_WIDTH = 0.35  # least seconds of sound behind one opening: mouths move slower than sound
_VOICES = ("en-gb", "en-us", "en-gb-scotland")
_TIMEOUT = 30

_SUBJECTS = ("the captain", "my sister", "a tired doctor", "our neighbour", "the old clock", "nobody", "she")
_VERBS = ("remembers", "has painted", "will sell", "never liked", "talks about", "is looking for", "opened")
_OBJECTS = ("the blue door", "seven apples", "a quiet song", "the river", "that letter", "our garden", "it")
_ENDINGS = ("today", "before dinner", "in the rain", "without a word", "again and again", "at last", "")


def sentence(rng: np.random.Generator) -> str:
    """Make up something to say."""
    parts = (part[rng.integers(len(part))] for part in (_SUBJECTS, _VERBS, _OBJECTS, _ENDINGS))
    return " ".join(part for part in parts if part) + "."


def opening(sound: np.ndarray, rate: int, frames: int, fps: float) -> np.ndarray:
    """Return how far the mouth is open in each frame, [frames] in 0..1, from sound [N].

    The RMS level under a Hann window around the frame, of twice a frame's time and at least 0.35 s, relative
    to the clip's loud parts (95th percentile); 0 for silence (peak below -40 dBFS).
    """
    width = max(2 / fps, _WIDTH)
    half = max(int(width * rate / 2), 1)
    window = np.hanning(2 * half + 1)
    padded = np.pad(np.square(np.asarray(sound, np.float64)), half)
    there = np.pad(np.ones(len(sound)), half)  # at the ends, the mean of what there is
    power = np.zeros(frames)
    for index, start in enumerate((np.arange(frames) / fps * rate).astype(int)):
        part = slice(start, start + 2 * half + 1)
        weight = window[: len(padded[part])] * there[part]
        power[index] = padded[part] @ weight / max(weight.sum(), 1e-9)
    level = np.sqrt(power)
    loud = np.percentile(level, 95)
    return np.clip(level / loud, 0, 1) if loud > 0.01 else np.zeros(frames)


def loudness(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Draw a loudness curve of syllables and pauses, 100 values per second in 0..1.

    Returns [100 * seconds].
    """
    count = max(int(math.ceil(seconds * _CURVE_RATE)), 1)
    curve = np.zeros(count)
    now = -rng.uniform(0, 2)  # a clip may begin amid a word or a pause
    while now < seconds:
        length, level = rng.uniform(0.35, 0.7), rng.uniform(0.35, 1.0)
        index = np.arange(max(int(now * _CURVE_RATE), 0), min(int((now + length) * _CURVE_RATE), count))
        phase = (index / _CURVE_RATE - now) / length
        curve[index] = np.maximum(curve[index], level * np.sin(math.pi * np.clip(phase, 0, 1)) ** 0.8)
        now += length * rng.uniform(0.8, 1.0) + (rng.uniform(0.3, 0.9) if rng.random() < 0.3 else 0.0)
    return curve


def babble(rng: np.random.Generator, frames: int, fps: float) -> np.ndarray:
    """Return openings of a mouth that says something, without the sound, [frames]."""
    curve = loudness(rng, frames / fps)
    return opening(curve, _CURVE_RATE, frames, fps)


def vowels(rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Sing vowels at a wandering pitch, float32 [seconds * 16000]: harmonics weighted by formants."""
    curve = loudness(rng, seconds)
    count = round(seconds * RATE)
    time = np.arange(count) / RATE
    level = np.interp(time, np.arange(len(curve)) / _CURVE_RATE, curve)
    base = rng.uniform(95, 220)
    pitch = base * (1 + 0.08 * np.sin(2 * math.pi * rng.uniform(0.3, 0.9) * time + rng.uniform(0, 6)))
    phase = 2 * math.pi * np.cumsum(pitch) / RATE
    # The vowel changes where the voice is low; formants glide between.
    starts = np.arange(0, seconds + 0.5, 0.5)
    drawn = np.array([_VOWELS[tuple(_VOWELS)[rng.integers(len(_VOWELS))]] for _ in starts])
    formants = np.stack([np.interp(time, starts, drawn[:, i]) for i in range(3)])
    sound = np.zeros(count)
    for k in range(1, int(3600 / base) + 1):
        frequency = k * pitch
        gain = sum(
            weight / (1 + ((frequency - formant) / width) ** 2)
            for formant, width, weight in zip(formants, (80, 120, 160), (1.0, 0.6, 0.3), strict=True)
        )
        sound += (gain + 0.02) / k**0.5 * np.sin(k * phase)
    sound *= level
    peak = np.abs(sound).max()
    return (0.8 * sound / peak if peak > 0 else sound).astype(np.float32)


def has_espeak() -> bool:
    """Say whether the program espeak-ng is on this machine."""
    return shutil.which("espeak-ng") is not None


def speak(text: str, voice: str = "en-gb", words_per_minute: int = 120, pitch: int = 50) -> np.ndarray:
    """Let espeak-ng read a text, float32 [N] at 16 kHz; `MissingError` when it isn't installed."""
    if not has_espeak():
        raise MissingError("speech needs the program espeak-ng", "apt install espeak-ng")
    command = ["espeak-ng", "--stdout", "-v", voice, "-s", str(words_per_minute), "-p", str(pitch), "--stdin"]
    try:
        done = subprocess.run(command, input=text.encode(), capture_output=True, timeout=_TIMEOUT, check=True)
    except (subprocess.SubprocessError, OSError) as problem:
        raise HyError(f"espeak-ng failed on {text[:40]!r} ({type(problem).__name__})") from problem
    with wave.open(io.BytesIO(done.stdout)) as file:
        rate = file.getframerate()
        # The header of a stream doesn't know the length; the data says it.
        data = np.frombuffer(file.readframes(len(done.stdout)), "<i2").astype(np.float64) / 32768
    count = round(len(data) * RATE / rate)
    spectrum = np.fft.rfft(data)
    kept = spectrum[: count // 2 + 1]
    sound = np.fft.irfft(kept, count) * (count / max(len(data), 1)) if count else np.zeros(0)
    peak = np.abs(sound).max(initial=0)
    return (0.8 * sound / peak if peak > 0 else sound).astype(np.float32)


def talk(rng: np.random.Generator, seconds: float, source: str = "auto") -> np.ndarray:
    """Say something for so long, float32 [seconds * 16000]; "auto" takes espeak-ng if it is installed."""
    if source not in SOURCES:
        raise UsageError(f"no speech source {source!r}", f"one of {', '.join(SOURCES)}")
    if source == "vowels" or (source == "auto" and not has_espeak()):
        return vowels(rng, seconds)
    count = round(seconds * RATE)
    start = int(rng.uniform(0, 2) * RATE)  # a clip may begin amid a word or a pause
    pieces: list[np.ndarray] = []
    voice, pitch = _VOICES[rng.integers(len(_VOICES))], int(rng.integers(25, 75))
    while sum(map(len, pieces)) < start + count:
        pieces.append(speak(sentence(rng), voice, int(rng.integers(90, 130)), pitch))
        pieces.append(np.zeros(int(rng.uniform(0.1, 0.6) * RATE), np.float32))
    return np.concatenate(pieces)[start : start + count]
