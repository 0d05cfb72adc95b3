"""What a model can't heed, sounds that break late, mixes that are too loud, crowds of actors: one line each."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from avatar import small, talking
from avatar.driven import CONFIG, pose_file, weights
from hy_avatar import checks, driving, faces_mediapipe, sound
from hy_avatar.config import Expression
from hy_avatar.faces_mediapipe import followed
from hy_avatar.plugin import Avatar
from hy_avatar.speech import Span
from hy_core import media
from hy_core.errors import HyError, UsageError
from hy_core.media import vad
from hy_core.request import Request, Sound

REQUEST = Request("a person talks", width=64, height=64, frames=9, steps=1, seed=0)


# -- options ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {"image_prompt": "instead"},
            "--avatar-image-prompt: this model has no language model that reads pictures",
        ),
        ({"head_scale": 60.0}, "--avatar-head-scale: this model has no input for the amount of motion"),
        (
            {"expression_scale": 0.0},
            "--avatar-expression-scale: this model has no input for the amount of motion",
        ),
        ({"cache": False}, "--avatar-cache: this model isn't sampled as released"),
        ({"whisper": "."}, "--avatar-whisper: this model reads mel bands"),
    ],
)
def test_what_a_model_can_t_heed_is_an_error(tiny, face, tmp_path, more, said):
    file = weights(tiny, tmp_path / "a.safetensors", replace(CONFIG, controls=0))
    plain = Avatar(image=face, weights=file)
    plain.attach(tiny.dit)  # without the option all is well
    from hy_core.testing.tiny import Tiny

    with pytest.raises(UsageError, match=said):
        Avatar(image=face, weights=file, **more).attach(Tiny().dit)


def test_what_a_model_can_heed_is_none(tiny, face, tmp_path):
    file = weights(tiny, tmp_path / "a.safetensors")
    Avatar(image=face, weights=file, head_scale=60.0, expression_scale=0.0).attach(tiny.dit)


@pytest.mark.parametrize(
    ("more", "flag", "driver"),
    [
        ({"strength": 2.0}, "--avatar-strength", "--avatar-speech"),
        ({"speech_gate": "off"}, "--avatar-speech-gate", "--avatar-speech"),
        ({"expression_strength": 0.5}, "--avatar-expression-strength", "--avatar-expression"),
        ({"pose_person": 1}, "--avatar-pose-person", "--avatar-pose"),
    ],
)
def test_options_of_a_driver_that_isn_t_given(face, caplog, more, flag, driver):
    Avatar(image=face, **more).validate(REQUEST)
    assert f"{flag} has no effect without {driver}" in caplog.text


def test_options_of_a_driver_that_is_given(face, talk, tmp_path, caplog):
    body = pose_file(tmp_path / "a.json")
    Avatar(image=face, speech=[talk], strength=2.0, pose=body, pose_person=0, pose_fit=False).validate(
        REQUEST
    )
    assert "no effect" not in caplog.text
    assert set(checks.DEPENDENT) == {"speech", "expression", "pose"}


# -- sound ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_sound_that_breaks_late_is_told_before_the_run(tmp_path, face, value):
    soundfile = pytest.importorskip("soundfile")
    samples = 0.1 * np.ones(5 * 16000, np.float32)
    samples[4 * 16000] = value
    soundfile.write(tmp_path / "late.wav", samples, 16000, subtype="FLOAT")
    with pytest.raises(UsageError, match="--avatar-speech: .*not numbers"):
        Avatar(image=face, speech=[tmp_path / "late.wav"]).validate(REQUEST)
    with pytest.raises(HyError, match="not numbers"):
        sound.track([tmp_path / "late.wav"], 5.0)


def test_a_file_is_measured_once_and_again_when_it_is_another(tmp_path, monkeypatch):
    path, counts, real = small.tone(tmp_path / "a.wav", 1.0), [], sound.stream_sound
    monkeypatch.setattr(sound, "stream_sound", lambda *given: counts.append(1) or real(*given))
    sound.seconds(path)
    assert sound.seconds(path) == pytest.approx(1.0, abs=0.01) and len(counts) == 1
    small.tone(path, 2.0)
    assert sound.seconds(path) == pytest.approx(2.0, abs=0.01) and len(counts) == 2


def test_no_more_of_a_file_is_read_than_the_clip_needs(tmp_path, monkeypatch):
    taken = []

    def endless(path, rate):
        for _ in itertools.count():
            taken.append(1)
            yield np.full(rate, 0.1, np.float32)

    monkeypatch.setattr(sound, "stream_sound", endless)
    mixed = sound.track(["a", "b"], 2.0)
    assert len(taken) == 4 and mixed.samples.shape == (1, 96000)
    assert len(vad.detect_speech(sound.until(endless("a", 16000), 32000))) == 63
    path = small.tone(tmp_path / "long.wav", 20, rate=8000, channels=2)
    held = sound.read(path, 0.5)
    assert held.rate == 8000 and held.samples.shape == (2, 4000)
    np.testing.assert_allclose(held.samples, media.read_sound(path).samples[:, :4000], atol=1e-6)


def test_a_file_that_is_shorter_is_filled_with_silence(tmp_path):
    held = sound.read(talking.stereo_24(tmp_path / "a.wav", np.full((2, 4410), 0.5)), 0.2)
    assert held.samples.shape == (2, 8820) and np.allclose(held.samples[:, :4400], 0.5, atol=1e-3)
    assert not held.samples[:, 4420:].any()


def test_a_loud_mix_is_limited_and_keeps_its_wave():
    rate = 16000
    t = np.arange(2 * rate) / rate
    wave = np.sin(2 * np.pi * 200 * t) * np.where((t > 0.9) & (t < 1.1), 1.8, 0.5)
    loud = sound.limited(np.stack([wave, 0.5 * wave]).astype(np.float32), rate)
    assert np.abs(loud).max() <= sound.CEILING + 1e-6
    np.testing.assert_array_equal(loud[:, : rate // 2], np.float32(wave[: rate // 2]) * [[1], [0.5]])
    middle = slice(round(0.95 * rate), round(1.05 * rate))
    # A cut wave has a third of its power in overtones; a softer one has none.
    spectrum = np.abs(np.fft.rfft(loud[0, middle] * np.hanning(1600)))
    at = np.argmax(spectrum)
    assert at == 20 and spectrum[at + 10 :].max() < 1e-3 * spectrum[at]
    np.testing.assert_allclose(loud[1], loud[0] / 2, atol=1e-6)


@pytest.mark.parametrize("count", [1, 15, 16, 17, 1000])
def test_the_limiter_takes_any_length(count):
    rng = np.random.default_rng(count)
    wild = (3 * rng.standard_normal((2, count))).astype(np.float32)
    wild[0, 0] = 4
    done = sound.limited(wild, 16000)
    assert done.shape == wild.shape and np.abs(done).max() <= sound.CEILING + 1e-6
    calm = np.clip(wild, -1, 1)
    assert sound.limited(calm, 16000) is calm


def test_speech_over_a_loud_sound_is_not_cut(tmp_path):
    path = talking.stereo_24(tmp_path / "a.wav", 0.9 * np.ones((1, 48000)), 48000)
    under = Sound(np.full((2, 48000), 0.8, np.float32), 48000)
    mixed = sound.track([path], 1.0, under)
    assert np.abs(mixed.samples).max() <= 1 and np.abs(mixed.samples).max() > 0.9


# -- actors -----------------------------------------------------------------------------------------------


class Actor:
    """A landmarker whose faces are counted, as MediaPipe's is."""

    crowded = 0

    def __init__(self):
        self.inner = talking.Points()

    def landmarks(self, frames):
        self.crowded += sum(len(talking.blocks(frame)) > 1 for frame in frames)
        return self.inner.landmarks(frames)


@pytest.fixture
def acted(monkeypatch, tmp_path):
    def acted(shown, frames=20):
        monkeypatch.setattr(faces_mediapipe, "MediaPipeLandmarks", Actor)
        path = talking.clip(tmp_path / "actor.mp4", shown)
        return driving.expression_latents(path, Expression(features=12), None, Span(frames, 25.0))

    return acted


def test_two_actors_are_told(acted, caplog):
    assert acted(talking.pictures(20, left=10, second=True)).shape == (20, 12)
    assert "several faces in 20 of 20 frames; the one that is largest at first is followed" in caplog.text


def test_an_actor_who_leaves_is_told(acted, caplog):
    found = acted(talking.pictures(20, left=60, moves=4))
    assert "the face leaves" in caplog.text and "its last expression is repeated" in caplog.text
    assert np.allclose(found[12:], found[11], atol=1e-6)


def test_nobody_is_an_error(acted):
    with pytest.raises(HyError, match="no face was found in .*actor.mp4"):
        acted(np.full((6, 96, 128, 3), 20, np.uint8))


def test_of_a_long_actor_only_what_the_clip_needs_is_seen(acted, monkeypatch):
    seen, real = [], Actor.landmarks
    monkeypatch.setattr(
        Actor, "landmarks", lambda self, frames: seen.append(len(frames)) or real(self, frames)
    )
    acted(talking.pictures(60), frames=9)
    assert sum(seen) == 10


def test_a_face_is_followed_past_a_larger_one():
    small_, large = np.float64([[10, 10], [20, 20]]), np.float64([[60, 10], [90, 40]])
    assert followed([small_, large], None) is large
    assert followed([small_, large], small_ + 2) is small_
    assert followed([large], small_) is large  # there is no other
