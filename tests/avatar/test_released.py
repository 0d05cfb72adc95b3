"""A released model's folder: loaded strictly, run through the pipeline and the command, in 16 and in 8 bits."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from avatar import small
from hy_avatar import model_files, network, released
from hy_avatar.config import RELEASED
from hy_avatar.plugin import Avatar
from hy_core import Request, generate, models
from hy_core.dit import DiT
from hy_core.errors import HyError, MissingError
from hy_core.weights import load_owned

BOX = "0.3,0.3,0.7,0.7"


@pytest.fixture
def request_(released_folder):
    return Request(
        "a person talks", negative="bad", width=32, height=32, frames=9, fps=25, steps=3, cfg=7.5, shift=5.0,
        model=str(released_folder),
    )  # fmt: skip


def test_every_key_has_its_place():
    """Ours and theirs are the same keys, one to one; none is anybody else's."""
    dit = DiT(small.DIT)
    base = set(dit.state_dict())
    network.attach_modules(dit, "avatar", small.AVATAR)
    own = [key for key in dit.state_dict() if key not in base]
    places = [released.source(key, "avatar", small.AVATAR) for key in own]
    assert all(place is not None and len(place.keys) == 1 for place in places)
    theirs = [place.keys[0] for place in places]
    assert len(set(theirs)) == len(theirs)
    assert all(released.owns_key(key) for key in theirs)
    assert not any(released.owns_key(key) for key in base)
    assert {key.split(".")[0] for key in theirs} == {
        "audio_proj", "audio_adapter_blocks", "before_proj", "fps_proj", "motion_exp", "motion_pose", "ref_in",
    }  # fmt: skip


def test_the_released_shapes_are_the_defaults():
    """20 double blocks of 3072: ten adapters, the shapes of the facts' table, and the config read off them."""
    from hy_core.dit import DiTConfig

    with torch.device("meta"):
        dit = DiT(DiTConfig.named["HYVideo-T/2"])
        network.attach_modules(dit, "avatar", RELEASED)
    found = {
        place.keys[0]: tuple(tensor.shape)
        for key, tensor in dit.state_dict().items()
        if (place := released.source(key))
    }
    assert len({key.split(".")[1] for key in found if key.startswith("audio_adapter_blocks")}) == 10
    assert found["audio_proj.proj1.weight"] == (1024, 19200)
    assert found["audio_proj.proj3.weight"] == (12288, 1024)
    assert found["audio_adapter_blocks.9.to_kv.weight"] == (2048, 3072)
    assert found["audio_adapter_blocks.0.to_q.weight"] == (1024, 3072)
    assert found["ref_in.proj.weight"] == (3072, 16, 1, 2, 2)
    assert found["motion_exp.mlp.2.weight"] == (768, 768)
    assert found["fps_proj.mlp.2.weight"] == (3072, 3072)
    assert "audio_adapter_blocks.0.to_q.bias" not in found
    assert released.config_of(found) == RELEASED


def test_a_clip_of_a_released_folder(request_, face, talk):
    avatar = Avatar(image=face, speech=[talk], speaker=[BOX])
    avatar.validate(request_)
    result = generate(request_, [avatar])
    assert result.frames.shape == (9, 32, 32, 3)
    assert result.sound.rate == 16000
    assert result.sound.samples.shape[1] == round(9 / 25 * 16000)
    again = generate(request_, [Avatar(image=face, speech=[talk], speaker=[BOX])])
    assert np.array_equal(result.frames, again.frames)


def test_what_is_said_changes_the_clip(request_, face, talk, tmp_path):
    """Through every part: sound, Whisper, adapters, guidance on speech alone after the tenth step."""
    other = small.tone(tmp_path / "other.wav", rate=22050, pitch=900)
    model = models.load(str(request_.model), conditioners=[Avatar(image=face)])

    def clip(speech, **options):
        avatar = Avatar(image=face, speech=[speech], speaker=[BOX], speech_gate="off", **options)
        return generate(request_, [avatar], model=model).frames.astype(int)

    one = clip(talk)
    assert abs(one - clip(other)).max() > 0
    assert abs(one - clip(talk, head_scale=80)).max() > 0
    assert abs(one - clip(talk, strength=0.0)).max() > 0


def test_long_speech_needs_no_other_path(request_, face, tmp_path):
    """More than one window of the network: 165 frames are 42 latent ones."""
    talk = small.tone(tmp_path / "long.wav", seconds=7)
    avatar = Avatar(image=face, speech=[talk], speaker=[BOX])
    assert avatar.defaults({"width": 64, "height": 64, "fps": 25.0}) == {"frames": 177}
    result = generate(replace(request_, frames=165, width=16, height=16, steps=2), [avatar])
    assert result.frames.shape == (165, 16, 16, 3)


def test_eight_bits_with_their_map(request_, released_folder, face, talk, tmp_path):
    """The fp8 file and its map give nearly the clip of the whole file; without the map it's one line."""
    state, scales = small.state(), {}
    for key, tensor in list(state.items()):
        if key.startswith(("double_blocks", "single_blocks")) and tensor.ndim == 2:
            scales[key.removesuffix(".weight")] = tensor.abs().max() / 448
            state[key] = (tensor / scales[key.removesuffix(".weight")]).to(torch.float8_e4m3fn)
    file = tmp_path / "mp_rank_00_model_states_fp8.pt"
    torch.save({"module": state}, file)
    with pytest.raises(MissingError, match="scales"):
        models.load(str(released_folder), weights=str(file), conditioners=[Avatar(image=face)])
    torch.save({"module": scales}, tmp_path / "mp_rank_00_model_states_fp8_map.pt")
    avatar = Avatar(image=face, speech=[talk], speaker=[BOX])
    whole = generate(request_, [avatar]).frames.astype(int)
    eight = generate(replace(request_, weights=str(file)), [avatar]).frames.astype(int)
    assert 0 < abs(whole - eight).mean() < 12


def test_nothing_is_missing_and_nothing_left_over(released_folder, face, tmp_path):
    def model(change):
        state = small.state()
        change(state)
        torch.save({"module": state}, tmp_path / "changed.pt")
        avatar = Avatar(image=face)
        made = models.load(str(released_folder), weights=str(tmp_path / "changed.pt"), conditioners=[avatar])
        with made.attached([avatar]):
            pass

    model(lambda state: None)
    with pytest.raises(HyError, match="1 missing .audio_adapter_blocks.0.to_kv.weight"):
        model(lambda state: state.pop("audio_adapter_blocks.0.to_kv.weight"))
    with pytest.raises(HyError, match="lack audio_proj.norm.weight"):
        model(lambda state: state.pop("audio_proj.norm.weight"))
    with pytest.raises(HyError, match="1 unexpected .audio_adapter_blocks.0.to_q.bias"):
        model(lambda state: state.update({"audio_adapter_blocks.0.to_q.bias": torch.zeros(16)}))
    with pytest.raises(HyError, match="1 unexpected .emotion"):
        model(lambda state: state.update({"emotion.weight": torch.zeros(1)}))
    with pytest.raises(HyError, match="aren't numbers"):
        model(lambda state: state["before_proj.weight"].fill_(torch.nan))


def test_without_the_plugin_the_file_doesn_t_fit(released_folder):
    with pytest.raises(HyError, match="unexpected .audio_adapter_blocks"):
        models.load(str(released_folder))
    owned = load_owned(models.find(str(released_folder)).dit, released.owns_key)
    assert set(owned) == {key for key in small.state() if released.owns_key(key)}


def test_guidance_as_released():
    scales = [released.guidance(step, 50) for step in range(50)]
    assert scales[0] == 7.5 and abs(scales[9] - 6.51) < 1e-9
    assert abs(scales[10] - 5.9) < 1e-9 and abs(scales[49] - 3.56) < 1e-9
    assert [step for step in range(50) if not released.CACHE.full(step, 50)] == [
        16, 17, 18, 19, 21, 22, 23, 24, 26, 27, 28, 29, 31, 32, 33, 34, 36, 37, 38, 39,
    ]  # fmt: skip


def test_the_command(hy, released_folder, face, talk, tmp_path):
    run = hy(
        "generate", "a person talks", "-p", "avatar", "--model", released_folder, "--avatar-image", face,
        "--avatar-speech", talk, "--avatar-speaker", BOX, "--size", "32x32", "--frames", "9", "--steps", "2",
        "-o", tmp_path / "talk.mp4",
    )  # fmt: skip
    assert run.exit_code == 0, run.stderr
    from hy_core import media

    clip = media.read(tmp_path / "talk.mp4")
    assert clip.frames.shape == (9, 32, 32, 3) and clip.sound is not None and clip.fps == 25


def test_weights_of_another_model_are_one_line(hy, face, tmp_path, monkeypatch):
    monkeypatch.setattr(model_files, "SHIPPED", tmp_path / "none.safetensors")
    run = hy("generate", "a person", "-p", "avatar", "--avatar-image", face, "-o", tmp_path / "x.mp4")
    assert run.exit_code == 3
    assert "Error: this model has no avatar in it, and no --avatar-weights are given" in run.stderr


def test_the_folder_without_its_language_model_s_eyes(request_, released_folder, face, talk, tmp_path):
    """Without a picture processor the prompt alone is read; the run goes on."""
    root = tmp_path / "model"
    shutil.copytree(released_folder, root)
    (root / "llava_llama_image" / "preprocessor_config.json").unlink()
    avatar = Avatar(image=face, speech=[talk], speaker=[BOX])
    blind = generate(replace(request_, model=str(root)), [avatar]).frames
    seeing = generate(request_, [avatar]).frames
    assert not np.array_equal(blind, seeing)
