"""Speech: its level opens the mouth; espeak-ng speaks where it is installed."""

from __future__ import annotations

import numpy as np
import pytest
from hy_core.errors import MissingError, UsageError
from hy_world import characters_speech as speech


def test_opening_follows_the_level():
    rate = speech.RATE
    time = np.arange(2 * rate) / rate
    sound = np.sin(2 * np.pi * 200 * time) * (time > 1)
    opening = speech.opening(sound, rate, 16, 8)
    assert opening[:6].max() < 0.05 and opening[11:15].min() > 0.9
    assert (speech.opening(np.zeros(rate), rate, 8, 8) == 0).all()
    assert speech.opening(sound[:100], rate, 5, 25).shape == (5,)


def test_opening_has_no_rate_of_its_own():
    sound = speech.vowels(np.random.default_rng(0), 2.0)
    other = np.interp(np.arange(0, len(sound), 0.5), np.arange(len(sound)), sound)
    one, two = speech.opening(sound, 16_000, 16, 8), speech.opening(other, 32_000, 16, 8)
    np.testing.assert_allclose(one, two, atol=0.02)


def test_vowels_are_speech_like():
    rng = np.random.default_rng(1)
    sound = speech.vowels(rng, 3.0)
    assert sound.dtype == np.float32 and len(sound) == 48_000 and 0.7 < np.abs(sound).max() <= 0.81
    spectrum = np.abs(np.fft.rfft(sound)) ** 2
    frequency = np.fft.rfftfreq(len(sound), 1 / speech.RATE)
    assert spectrum[(frequency > 80) & (frequency < 4000)].sum() > 0.99 * spectrum.sum()
    openings = speech.opening(sound, speech.RATE, 24, 8)
    assert openings.std() > 0.15


def test_unrelated_speech_opens_the_mouth_at_other_times():
    rng = np.random.default_rng(2)
    openings = [speech.opening(speech.vowels(rng, 17 / 8), speech.RATE, 17, 8) for _ in range(40)]
    pairs = [np.corrcoef(a, b)[0, 1] for a, b in zip(openings[1:], openings[:-1], strict=True)]
    assert abs(np.mean(pairs)) < 0.15


@pytest.mark.skipif(not speech.has_espeak(), reason="espeak-ng is not installed")
def test_espeak_speaks():
    rng = np.random.default_rng(3)
    sound = speech.speak("Hello world, this is a test.")
    assert sound.dtype == np.float32 and 1.0 < len(sound) / speech.RATE < 6.0
    longer = speech.talk(rng, 5.0, "espeak")
    assert len(longer) == 80_000 and speech.opening(longer, speech.RATE, 40, 8).std() > 0.1
    assert len({speech.sentence(rng) for _ in range(50)}) > 30


def test_without_espeak_vowels_or_a_hint(monkeypatch):
    monkeypatch.setattr(speech.shutil, "which", lambda name: None)
    assert len(speech.talk(np.random.default_rng(0), 1.0, "auto")) == 16_000
    with pytest.raises(MissingError) as caught:
        speech.speak("hello")
    assert "espeak-ng" in caught.value.hint
    with pytest.raises(UsageError, match="source"):
        speech.talk(np.random.default_rng(0), 1.0, "singer")
