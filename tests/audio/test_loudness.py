"""Loudness is that of the standard, by two other implementations; peaks stay below the stated limit."""

from __future__ import annotations

import math

import av
import numpy as np
import pytest
from audio.clips import tone
from hy_audio.limiter import limit, normalise_loudness, true_peak
from hy_audio.loudness import LoudnessMeter, is_silent, loudness, rms_levels
from hy_audio.temporary import TemporarySound

pyloudnorm = pytest.importorskip("pyloudnorm")


def noise(seconds: float, rate: int, channels: int = 1, level: float = 0.1, seed: int = 0) -> np.ndarray:
    """Noise that swells and fades."""
    count = round(seconds * rate)
    swell = np.abs(np.sin(np.arange(count) / rate)) ** 3
    return (level * swell * np.random.default_rng(seed).standard_normal((channels, count))).astype(np.float32)


def whole(pieces) -> np.ndarray:
    return np.concatenate(list(pieces), axis=1)


def ffmpeg(samples: np.ndarray, rate: int) -> tuple[float, float]:
    """Loudness and true peak by FFmpeg's ebur128."""
    graph = av.filter.Graph()
    layout = "mono" if len(samples) == 1 else "stereo"
    source = graph.add_abuffer(sample_rate=rate, format="fltp", layout=layout, time_base=f"1/{rate}")
    meter, sink = graph.add("ebur128", "peak=true:metadata=1"), graph.add("abuffersink")
    source.link_to(meter)
    meter.link_to(sink)
    graph.configure()
    last = {}
    for start in range(0, samples.shape[1], rate):
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples[:, start : start + rate]), "fltp", layout
        )
        frame.sample_rate, frame.pts = rate, start
        graph.push(frame)
        while True:
            try:
                last = graph.pull().metadata or last
            except (av.BlockingIOError, av.EOFError):
                break
    peaks = [float(value) for key, value in last.items() if "true_peaks_ch" in key]
    return float(last["lavfi.r128.I"]), 20 * math.log10(max(peaks))


@pytest.mark.parametrize("rate", [16000, 44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_meter_in_pieces_equals_pyloudnorm_on_the_whole(rate, channels):
    wave = noise(7.0, rate, channels)
    meter = LoudnessMeter(rate, channels)
    for piece in np.array_split(wave, 13, axis=1):
        meter.add(piece)
    theirs = pyloudnorm.Meter(rate).integrated_loudness(wave.T.astype(np.float64))
    assert meter.loudness() == pytest.approx(theirs, abs=0.01)
    assert loudness(wave, rate) == pytest.approx(theirs, abs=0.01)


def test_the_standards_sine_has_the_standards_loudness():
    assert loudness(tone(3, hertz=997, level=1.0), 48000) == pytest.approx(-3.01, abs=0.05)
    assert loudness(tone(3, hertz=997, level=1.0, channels=2), 48000) == pytest.approx(0.0, abs=0.05)
    assert loudness(tone(0.125, hertz=997, level=1.0), 48000) == pytest.approx(
        -3.01, abs=0.6
    )  # one short frame
    assert loudness(np.zeros((1, 48000)), 48000) == loudness(np.zeros((1, 0)), 48000) == -math.inf


def test_peaks_between_samples_are_found():
    between = np.sin(2 * np.pi * 12000 * np.arange(48000) / 48000 + np.pi / 4)[None]
    assert np.abs(between).max() < 0.71 and true_peak(between) == pytest.approx(0.0, abs=0.3)
    assert true_peak(np.zeros((2, 100))) == -math.inf


@pytest.mark.parametrize("rate", [16000, 48000])
@pytest.mark.parametrize("target", [-16.0, -23.0])
def test_sound_is_brought_to_the_stated_loudness(rate, target):
    for channels in (1, 2):
        wave = noise(6.0, rate, channels, 0.02)
        made = whole(normalise_loudness(TemporarySound(np.array_split(wave, 5, axis=1)), rate, target))
        assert made.shape == wave.shape and made.dtype == np.float32
        theirs, peak = ffmpeg(made, rate)
        assert theirs == pytest.approx(target, abs=0.3) and peak <= -0.9


def test_the_limiter_holds_true_peaks_in_pieces_and_leaves_quiet_sound_alone():
    rng = np.random.default_rng(1)
    wave = rng.standard_normal((2, 300_000)).astype(np.float32)
    wave[:, :150_000] *= 0.01
    made = whole(limit(np.array_split(wave, 41, axis=1), 48000, peak=-1.0))
    assert made.shape == wave.shape and true_peak(made) <= -1.0
    assert ffmpeg(made, 48000)[1] <= -0.9
    assert np.array_equal(made[:, :140_000], wave[:, :140_000])
    assert np.allclose(made, whole(limit([wave], 48000, peak=-1.0)), atol=1e-6)  # pieces leave no trace
    assert np.array_equal(whole(limit([wave[:, :999]], 48000, gain=6.0)), wave[:, :999] * np.float32(10**0.3))


def test_a_click_is_not_driven_into_the_limiter():
    wave = np.zeros((1, 48000 * 3), np.float32)
    wave[:, 40000:40003] = 0.9
    wave += 0.003 * np.random.default_rng(0).standard_normal(wave.shape).astype(np.float32)
    made = whole(normalise_loudness(TemporarySound([wave]), 48000, -10))
    assert true_peak(made) <= -0.9
    before, after = (float(np.sqrt((one[0, :30000] ** 2).mean())) for one in (wave, made))
    assert before < after < before * 10 ** (13 / 20)


def test_what_is_silent_stays_silent_and_none_leaves_the_level():
    quiet = 0.001 * np.random.default_rng(0).standard_normal((1, 32000)).astype(np.float32)
    assert is_silent([quiet], 16000)
    assert np.array_equal(whole(normalise_loudness(TemporarySound([quiet]), 16000)), quiet)
    wave = noise(2, 16000)
    assert np.array_equal(whole(normalise_loudness(TemporarySound([wave]), 16000, None)), wave)
    assert list(normalise_loudness(TemporarySound(), 16000)) == []


def test_levels_are_those_of_20_ms():
    wave = np.concatenate([np.zeros((1, 1600)), np.ones((1, 1600))], axis=1)
    found = rms_levels(np.array_split(wave, 7, axis=1), 16000)
    assert len(found) == 10 and (found[:5] < -100).all() and np.allclose(found[5:], 0)
    assert len(rms_levels([wave[:, :7]], 16000)) == 1 and not len(rms_levels([], 16000))


def test_a_spool_gives_back_what_it_took():
    wave = noise(1.0, 48000, 2)
    sound = TemporarySound(np.array_split(wave, 9, axis=1))
    assert np.array_equal(whole(sound), wave) and np.array_equal(whole(sound), wave)
    assert (sound.channels, sound.count) == (2, 48000)
