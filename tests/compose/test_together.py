"""Image to video, an avatar and sound in one run, in any order."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from audio.test_plugin import model as sound_model  # noqa: F401
from avatar import small
from hy_audio.plugin import Audio
from hy_avatar import network
from hy_avatar.config import AvatarConfig, Speech
from hy_avatar.plugin import Avatar
from hy_core import generate, media, models
from hy_core.errors import ConflictError
from hy_core.testing.tiny import Tiny, randomised
from hy_core.weights import load_dit, save_port_weights
from hy_i2v.plugin import I2V

BOX = "0.2,0.1,0.8,0.9"


def avatar_weights(dit, path):
    """Modules for a network, awake."""
    speech = Speech(layers=1, channels=20, hidden=8, inner=8, encoder="mel", every=1)
    config = AvatarConfig(speech=speech, area=1.0)
    network.attach_modules(dit, "avatar", config)
    for module in (dit.adapter_inputs, dit.embed, dit.time, *(block.after for block in dit.double_blocks)):
        randomised(module, 1)
    save_port_weights(dit, "avatar", path, {"config": json.dumps(config.to_json())})
    return path


@pytest.fixture
def files(tmp_path):
    return {
        "face": small.portrait(tmp_path / "face.png", 32, 32),
        "talk": small.tone(tmp_path / "talk.wav", 1.2),
    }


def test_in_any_order_one_clip(tiny, tmp_path, files, sound_model):  # noqa: F811
    weights = avatar_weights(Tiny().dit, tmp_path / "avatar.safetensors")
    request = replace(tiny.request, cfg=2.0, negative="noise")

    def clip(order, spoken=True):
        speech = {"speech": [files["talk"]], "speaker": [BOX], "speech_gate": "off"} if spoken else {}
        parts = {
            "i2v": I2V(image=files["face"]),
            "avatar": Avatar(image=files["face"], weights=weights, **speech),
            "audio": Audio(model=sound_model, prompt="rain", steps=1),
        }
        chosen = [parts[name] for name in order]
        for one in chosen:
            one.validate(request)
        return generate(request, chosen, model=tiny.model)

    names = ("i2v", "avatar", "audio")
    first = clip(names)
    for order in list(permutations(names))[1:]:
        other = clip(order)
        assert np.abs(other.frames.astype(int) - first.frames).max() <= 1, order
        assert np.allclose(other.sound.samples, first.sound.samples, atol=1e-5), order
    # Each does its part: the first frame is given, the mouth hears, and speech lies over the sound.
    given, free = (clip(order).frames[0].astype(int) for order in (("i2v",), ("avatar", "audio")))
    assert np.abs(first.frames[0] - given).mean() < 0.5 * np.abs(free - given).mean()
    assert np.abs(first.frames.astype(int) - clip(names, spoken=False).frames).max() > 0
    rain, speech = clip(("audio",)).sound, clip(("avatar",)).sound
    assert first.sound.rate == rain.rate and first.sound.samples.shape == rain.samples.shape
    assert first.sound.samples.std() > max(rain.samples.std() * 0.5, 0.01) and speech.rate == 16000


def test_two_first_frames_are_one_too_many(tiny, tmp_path, files):
    weights = avatar_weights(Tiny().dit, tmp_path / "avatar.safetensors")
    both = [I2V(image=files["face"]), Avatar(image=files["face"], weights=weights, fix_first_frame=True)]
    with pytest.raises(ConflictError, match="avatar and i2v|i2v and avatar"):
        generate(tiny.request, both, model=tiny.model)


@pytest.mark.skipif(not models.find("pocket").dit.exists(), reason="needs pocket's weights")
def test_the_command_with_all_three(hy, tmp_path, files, sound_model):  # noqa: F811
    weights = avatar_weights(load_dit(models.find("pocket").dit), tmp_path / "avatar.safetensors")
    for order in (("i2v", "avatar", "audio"), ("audio", "avatar", "i2v")):
        target = tmp_path / f"{order[0]}.mp4"
        done = hy(
            "generate", "a person talks", *(part for name in order for part in ("-p", name)),
            "--size", "32x32", "--frames", "9", "--steps", "1", "--seed", "3",
            "--i2v-image", str(files["face"]), "--avatar-image", str(files["face"]),
            "--avatar-weights", str(weights), "--avatar-speech", str(files["talk"]), "--avatar-speaker", BOX,
            "--audio-model", str(sound_model), "--audio-prompt", "rain", "--audio-steps", "1",
            "-o", str(target),
        )  # fmt: skip
        assert done.exit_code == 0, done.stderr
        made = media.read(target)
        assert made.frames.shape == (9, 32, 32, 3) and made.sound is not None and made.sound.samples.any()
