"""Speech: the released model's windows, any length, any sound file; who speaks, and when."""

from __future__ import annotations

import wave

import numpy as np
import pytest
import torch
from avatar import small
from hy_avatar import sound, speakers, speech
from hy_avatar.config import AvatarConfig, Speech
from hy_avatar.plugin import Avatar
from hy_avatar.speakers import Choice
from hy_avatar.speech import Span, WhisperSpeechEncoder, features
from hy_core import Request
from hy_core.errors import HyError, MissingError, UsageError
from hy_core.media import stream_sound, vad

REQUEST = Request("x", width=64, height=64, frames=9, fps=25)


@pytest.fixture(scope="module")
def speech_encoder():
    return WhisperSpeechEncoder(small.whisper().encoder)


def noise(seconds, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * sound.RATE)).astype(np.float32)


def test_as_the_released_model_windows_it(speech_encoder):
    """Four zero steps in front; frame f takes steps 2f to 2f+9 of that, so ten around its moment."""
    samples = noise(3)
    found = features([samples], speech_encoder, Span(75, 25))
    states = speech_encoder.encode(samples)
    padded = torch.cat([torch.zeros(4, *states.shape[1:]), states])
    assert torch.equal(found, torch.stack([padded[2 * f : 2 * f + 10] for f in range(75)]))
    assert found.shape == (75, 10, 5, 24)


def test_half_the_rate_takes_twice_the_step(speech_encoder):
    samples = noise(3)
    assert torch.equal(
        features([samples], speech_encoder, Span(20, 12.5)),
        features([samples], speech_encoder, Span(40, 25))[::2],
    )


def test_frames_behind_the_sound_are_zero(speech_encoder):
    found = features([noise(1)], speech_encoder, Span(40, 25))
    assert found[24].abs().sum() > 0
    assert found[25:].abs().sum() == 0


def test_any_length_and_any_place(speech_encoder):
    """Over 30 s: no jump in what is read first, no gap, the same wherever one begins and however it comes."""
    samples = noise(70)
    whole = features([samples], speech_encoder, Span(1750, 25))
    assert (whole.abs().sum((1, 2, 3)) > 0).all()
    first = features([samples[: 30 * sound.RATE]], speech_encoder, Span(720, 25))
    assert torch.equal(whole[:720], first)
    pieces = np.array_split(samples, 23)
    assert torch.equal(features(iter(pieces), speech_encoder, Span(100, 25, 1500)), whole[1500:1600])


def test_an_hour_is_read_as_a_stream(speech_encoder):
    """Nothing is held but 30 s; of what isn't needed nothing is encoded, and the end isn't waited for."""
    taken = 0

    def hour():
        nonlocal taken
        for _ in range(3600):
            taken += 1
            yield np.zeros(sound.RATE, np.float32)

    features(hour(), speech_encoder, Span(25, 25, 25 * 100))
    assert 102 < taken < 150


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 96000])
@pytest.mark.parametrize("channels", [1, 2, 8])
@pytest.mark.parametrize("kind", ["PCM_16", "PCM_24", "FLOAT"])
def test_any_sound_file(tmp_path, rate, channels, kind):
    soundfile = pytest.importorskip("soundfile")
    t = np.arange(rate) / rate
    tone = 0.5 * np.sin(2 * np.pi * 440 * t)
    soundfile.write(tmp_path / "a.wav", np.repeat(tone[:, None], channels, 1), rate, subtype=kind)
    heard = np.concatenate(list(stream_sound(tmp_path / "a.wav", sound.RATE)))
    assert abs(len(heard) - sound.RATE) <= 32
    wanted = 0.5 * np.sin(2 * np.pi * 440 * np.arange(len(heard)) / sound.RATE)
    middle = slice(2000, 14000)
    assert np.abs(heard[middle] - wanted[middle]).max() < 0.02


def test_sound_that_can_t_be_heard(tmp_path, face):
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(tmp_path / "nan.wav", np.full(8000, np.nan, np.float32), 16000, subtype="FLOAT")
    with wave.open(str(tmp_path / "empty.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
    (tmp_path / "text.wav").write_text("hello")
    small.portrait(tmp_path / "silent.png")
    for name, why in (
        ("nan.wav", "not numbers"),
        ("empty.wav", "is empty"),
        ("text.wav", "cannot be read"),
        ("silent.png", "cannot be read"),
        ("nowhere.wav", "no such file"),
    ):
        with pytest.raises(HyError, match=why) as found:
            Avatar(image=face, speech=[tmp_path / name]).validate(REQUEST)
        assert found.value.message.startswith("--avatar-speech: ")
        assert "\n" not in found.value.message


def test_frames_for_a_length():
    assert sound.frames_for(1.0, 25) == 25
    assert sound.frames_for(1.01, 25) == 29
    assert sound.frames_for(0.01, 25) == 1
    assert sound.frames_for(5.16, 25) == 129


def test_the_clip_s_sound(talk, tmp_path):
    one = sound.track([talk], 2.0)
    assert one.rate == 16000 and one.samples.shape == (1, 32000)
    assert abs(one.samples[:, 16000:]).max() == 0
    other = small.tone(tmp_path / "b.wav", rate=44100, channels=2)
    both = sound.track([talk, other], 0.5)
    assert both.rate == sound.MIXED and both.samples.shape == (1, 24000)
    under = sound.track([talk], 0.5, one)
    assert under.rate == 16000 and abs(under.samples).max() <= 1


# -- voice activity ----------------------------------------------------------------------------------------------


def test_silence_is_told_without_a_detector():
    said = vad.detect_speech([np.concatenate([np.zeros(32000, np.float32), noise(2)])])
    assert not said[:40].any() and said[75:].all()
    frames = vad.speech_of_frames(said, 110, 25)
    assert not frames[:30].any() and frames[55:99].all() and not frames[101:].any()


def test_music_is_no_speech():
    if not vad.Silero.is_installed():
        pytest.skip("silero-vad isn't installed")
    t = np.arange(4 * sound.RATE) / sound.RATE
    chord = sum(np.sin(2 * np.pi * tone * t) for tone in (220, 277.2, 329.6, 440)).astype(np.float32) * 0.1
    assert vad.detect_speech([chord]).all()
    assert not vad.detect_speech([chord], vad.Silero.load()).any()


def test_speech_is_speech(tmp_path):
    import shutil
    import subprocess

    if not vad.Silero.is_installed() or not shutil.which("espeak-ng"):
        pytest.skip("needs silero-vad and espeak-ng")
    path = tmp_path / "say.wav"
    subprocess.run(
        ["espeak-ng", "-w", path, "Good morning, this is a sentence about a mouth that moves."], check=True
    )
    heard = np.concatenate(list(stream_sound(path, sound.RATE)))
    quiet = np.zeros(2 * sound.RATE, np.float32)
    said = vad.detect_speech([quiet, heard, quiet], vad.Silero.load())
    middle = said[len(quiet) // 512 + 5 : (len(quiet) + len(heard)) // 512 - 15]
    assert middle.mean() > 0.9
    assert said[:30].mean() == said[-30:].mean() == 0


# -- speakers ----------------------------------------------------------------------------------------------

FACES = [(0.1, 0.2, 0.3, 0.5), (0.5, 0.1, 0.9, 0.8)]


@pytest.mark.parametrize(
    ("text", "index"),
    [("largest", 1), ("0", 0), ("1", 1), ("0.2,0.3", 0), ("0.95,0.9", 1), ("0.05,0.2,0.35,0.5", 0)],
)
def test_a_face_is_chosen(text, index):
    assert Choice.read(text).pick(FACES) == index


@pytest.mark.parametrize("text", ["", "left", "-1", "1.5", "0.2,1.3", "0.5,0.5,0.2,0.9", "1,2,3", "nan,0.1"])
def test_a_choice_that_is_none(text):
    with pytest.raises(UsageError):
        Choice.read(text)


def test_a_face_that_isn_t_there():
    with pytest.raises(UsageError, match="no face 2: 2 found"):
        Choice.read("2").pick(FACES)
    with pytest.raises(UsageError, match="no face in the picture"):
        Choice.read("largest").pick([])
    with pytest.raises(UsageError, match="no face in the box"):
        Choice.read("0.3,0.85,0.45,0.95").pick(FACES)


def test_a_box_in_what_the_clip_shows():
    assert speakers.cropped((0.25, 0.25, 0.75, 0.75), (100, 100), (64, 64)) == (0.25, 0.25, 0.75, 0.75)
    wide = speakers.cropped((0.4, 0.2, 0.6, 0.8), (200, 100), (64, 64))
    assert np.allclose(wide, (0.3, 0.2, 0.7, 0.8))
    with pytest.raises(UsageError, match="outside"):
        speakers.cropped((0.0, 0.2, 0.1, 0.8), (400, 100), (64, 64))


def test_no_place_hears_two():
    masks = torch.tensor([[1.0, 0.6, 0.0, 0.0], [1.0, 0.9, 0.4, 0.0]])
    found = speakers.disjoint(masks)
    assert found.tolist() == [[1.0, 0.0, 0.0, 0.0], [0.0, pytest.approx(0.9), pytest.approx(0.4), 0.0]]


def test_two_speakers_in_one_run(released_folder, face, talk, tmp_path):
    from hy_core import generate

    other = small.tone(tmp_path / "b.wav", rate=44100, pitch=900)
    request = Request(
        "x", negative="y", width=32, height=32, frames=5, fps=25, steps=2, cfg=7.5, model=str(released_folder)
    )
    boxes = ["0.0,0.2,0.4,0.8", "0.6,0.2,1.0,0.8"]

    def clip(speech, faces):
        avatar = Avatar(image=face, speech=speech, speaker=faces, area=1, speech_gate="off")
        avatar.validate(request)
        return generate(request, [avatar])

    one, two = clip([talk, other], boxes), clip([other, talk], boxes[::-1])
    assert np.abs(one.frames.astype(int) - two.frames).max() <= 1
    assert one.sound.rate == sound.MIXED
    assert np.abs(one.frames.astype(int) - clip([other, talk], boxes).frames).max() > 0


def test_choices_that_don_t_fit(face, talk, tmp_path):
    for options, why in (
        ({"speech": [talk], "speaker": ["0", "1"]}, "--avatar-speaker: 2 given for 1"),
        ({"speech": [talk], "speaker": ["here"]}, "--avatar-speaker: 'here' chooses no face"),
        ({"speech": [talk], "mask": [tmp_path / "no.png"]}, "--avatar-mask: no such file"),
        ({"whisper": tmp_path / "no"}, "--avatar-whisper: no such file"),
    ):
        with pytest.raises(HyError, match=why):
            Avatar(image=face, **options).validate(REQUEST)
    with pytest.raises(HyError, match="--avatar-image"):
        Avatar(image=tmp_path / "no.png").validate(REQUEST)
    with pytest.raises(UsageError, match="no picture of the person"):
        Avatar().validate(REQUEST)


def test_a_whisper_that_isn_t_there(tmp_path):
    with pytest.raises(MissingError, match="no Whisper model"):
        WhisperSpeechEncoder.load(tmp_path)


def test_whisper_from_a_folder(released_folder):
    found = WhisperSpeechEncoder.load(released_folder / "whisper-tiny")
    assert found.shape == (5, 24)
    samples = noise(1)
    assert torch.equal(found.encode(samples), WhisperSpeechEncoder(small.whisper().encoder).encode(samples))


def test_features_of_another_whisper_are_one_line(tiny):
    from hy_avatar.config import AvatarConfig, Speech
    from hy_avatar.driver_tokens import DriverTokens

    reader = DriverTokens(AvatarConfig(speech=Speech()), 48)
    feed = {
        "frames": 1,
        "speech": {"features": torch.zeros(1, 1, 1, 10, 7, 512), "mask": torch.ones(1, 1, 1, 4, 1)},
    }
    with pytest.raises(UsageError, match=r"7 layers of 512.*5 of 384"):
        reader(feed)
    assert speech.WINDOW == 10


@pytest.mark.parametrize("ordered", [False, True])
def test_which_frame_of_four_a_sound_is_in(tiny, ordered):
    """Without `ordered` the patches of a latent frame can't tell in which of its pixel frames a sound is."""
    import copy

    from hy_avatar import network
    from hy_core.flow.denoise import Denoiser
    from hy_core.testing.tiny import randomised

    own = Speech(layers=1, channels=4, hidden=8, tokens=2, inner=16, every=1, ordered=ordered)
    dit = copy.deepcopy(tiny.dit)
    network.attach_modules(dit, "avatar", AvatarConfig(speech=own, controls=0, reference="none"))
    randomised(dit.double_blocks[0].after, 1)
    sound = torch.randn(10, 1, 4, generator=torch.Generator().manual_seed(0))

    def drawn(at):
        features = torch.zeros(1, 1, 9, 10, 1, 4)
        features[0, 0, at] = sound
        cond = tiny.condition()
        tokens = cond.grid[0] * cond.grid[1]
        speech = {"features": features, "mask": torch.ones(1, 1, 3, tokens, 1)}
        cond.set_adapter_inputs("avatar", {"frames": 3, "speech": speech})
        with torch.no_grad():
            return Denoiser(dit, cond)(tiny.latents(), 0.6)

    assert not torch.allclose(drawn(2), drawn(6), atol=1e-5)  # another latent frame
    assert torch.allclose(drawn(2), drawn(3), atol=1e-5) != ordered
