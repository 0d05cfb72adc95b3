"""Voice activity detection: speech, music and silence, with Silero VAD and by energy alone."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest
from hy_core.media import timeline, vad

needs_silero = pytest.mark.skipif(not vad.Silero.is_installed(), reason="silero-vad isn't installed")


def noise(seconds: float) -> np.ndarray:
    count = round(seconds * vad.RATE)
    return np.random.default_rng(0).standard_normal(count).astype(np.float32) * 0.1


def chord(seconds: float) -> np.ndarray:
    t = np.arange(round(seconds * vad.RATE)) / vad.RATE
    return sum(np.sin(2 * np.pi * tone * t) for tone in (220, 277.2, 329.6, 440)).astype(np.float32) * 0.1


def test_without_a_detector_every_sound_is_speech_and_silence_is_not():
    speech = vad.detect_speech([np.concatenate([np.zeros(32000, np.float32), noise(2)])])
    assert len(speech) == 125
    assert not speech[:53].any() and speech[53:].all()  # the sound starts in chunk 62, widened by 9


def test_pieces_of_any_length_give_the_same_chunks():
    samples = np.concatenate([noise(1), np.zeros(20000, np.float32)])
    pieces = [samples[None, :100], samples[None, 100:9000], samples[None, 9000:]]
    assert (vad.detect_speech(pieces) == vad.detect_speech([samples])).all()


def test_frames_after_the_end_of_the_sound_are_without_speech():
    speech = np.ones(125, bool)  # 4 s
    frames = vad.speech_of_frames(speech, 110, 25)
    assert frames[:100].all() and not frames[100:].any()
    assert (vad.speech_of_frames(speech, 10, 25, start_frame=95) == ([True] * 5 + [False] * 5)).all()
    assert not vad.speech_of_frames(np.zeros(0, bool), 3, 25).any()


@needs_silero
def test_music_is_not_speech():
    assert vad.detect_speech([chord(4)]).all()
    assert not vad.detect_speech([chord(4)], vad.Silero.load()).any()


@needs_silero
@pytest.mark.skipif(not shutil.which("espeak-ng"), reason="needs espeak-ng")
def test_a_spoken_sentence_between_silence_is_found(tmp_path):
    path = tmp_path / "sentence.wav"
    sentence = "Good morning, this is a sentence about a mouth that moves."
    subprocess.run(["espeak-ng", "-w", path, sentence], check=True)
    spoken = np.concatenate([piece[0] for piece in timeline.sound(path, vad.RATE)])
    quiet = np.zeros(2 * vad.RATE, np.float32)
    detector = vad.Silero.load()
    speech = vad.detect_speech([quiet, spoken, quiet], detector)
    first, last = len(quiet) // vad.CHUNK, (len(quiet) + len(spoken)) // vad.CHUNK
    assert speech[first + 5 : last - 15].mean() > 0.9
    assert not speech[:30].any() and not speech[-30:].any()
    chances = detector(np.concatenate([quiet, spoken, quiet]))
    assert len(chances) == len(speech) and chances[first:last].max() > 0.9 > 0.1 > chances[:30].max()


@needs_silero
def test_a_detector_keeps_nothing_between_two_sounds():
    detector = vad.Silero.load()
    alone = detector(noise(1))
    detector(chord(2))
    assert (detector(noise(1)) == alone).all()
