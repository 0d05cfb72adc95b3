"""The model that comes along: taken where none is named, small, and reading with the core's language model."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from audio.clips import clip, lasts
from hy_audio import models
from hy_audio.codec import MelCodec, MelConfig, MelVAE, MelVAEConfig, Vocoder, VocoderConfig
from hy_audio.dit import AudioDiT, AudioDiTConfig
from hy_audio.dit.model_config import CONFIG_FILE, AudioModelConfig, PixelFeaturesConfig
from hy_audio.dit.text import language_model
from hy_audio.models import load_generator
from hy_audio.plugin import Audio
from hy_audio.training.model_folder import write_model_folder
from hy_audio.weights import load_network, save_network
from hy_core import generate
from hy_core.errors import HyError, MissingError
from hy_core.models import FOLDERS, fingerprint

MOST = 15e6  # bytes of the shipped folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny random model as the recipes export one."""
    folder = tmp_path_factory.mktemp("exported") / "pocket"
    words = language_model("pocket")
    torch.manual_seed(0)
    mel = MelConfig(sample_rate=8000, bins=20, n_fft=128, window=128, hop=64, fmax=4000)
    vocoder = VocoderConfig(
        mel=mel, channels=16, rates=(8, 8), kernels=(16, 16), block_kernels=(3,), dilations=((1, 3, 5),)
    )
    codec = MelCodec(MelVAE(MelVAEConfig(bins=20, channels=4, width=16)), Vocoder(vocoder))
    sizes = {"text_dim": json.loads((words / "config.json").read_text())["hidden_size"]}
    sizes |= {"visual_dim": 64, "sync_dim": 64, "depth_triple": 1, "depth_single": 1}
    dit = AudioDiT(AudioDiTConfig(channels=4, rate=62.5, width=16, heads=2, **sizes))
    for parameter in [*codec.parameters(), *dit.parameters()]:
        torch.nn.init.normal_(parameter, std=0.2)
    model_config = AudioModelConfig(1.0, steps=2, cfg=2.0, pixels=PixelFeaturesConfig(4, 4, 10.0))
    write_model_folder(folder, with_text_encoder(model_config, "pocket", fingerprint(words)), {})
    save_network(dit, folder / models.OWN, torch.bfloat16)
    codec.save(folder / "codec", torch.float16)
    return folder


@pytest.fixture
def pocket(folder, monkeypatch):
    """The same in the place of the shipped one."""
    monkeypatch.setattr(models, "POCKET", folder)
    return folder


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def core_model(folder):
    """A model of the core by another name, of which there is no more than what reads words."""
    shutil.copytree(language_model("pocket"), folder / "llm")
    (folder / "config.json").write_text("{}")
    return folder


def with_text_encoder(model_config, name, digest=None):
    return replace(model_config, text_encoder=name, text_encoder_hash=digest)


def state(folder, words, digest=None):
    """Let a folder read with another model of the core."""
    with_text_encoder(AudioModelConfig.read(folder), words, digest).write(folder)


def test_hy_audio_takes_it_where_none_is_named(hy, pocket, tmp_path):
    source = clip(tmp_path / "a.mp4", 15, 10)
    done = hy("audio", str(source), "--prompt", "a ball", "-o", str(tmp_path / "b.mp4"))
    assert done.exit_code == 0, done
    assert abs(lasts(tmp_path / "b.mp4", "audio") - 1.5) < 0.04
    made = []
    for name, more in (("own.wav", ()), ("named.wav", ("--model", str(pocket)))):
        assert hy("audio", str(source), *more, "-o", str(tmp_path / name)).exit_code == 0
        made.append((tmp_path / name).read_bytes())
    assert made[0] == made[1]


def test_a_generated_clip_gets_its_sound_and_says_so(pocket, tiny, hy, tmp_path):
    made, named = (
        generate(tiny.request, [Audio(prompt="a ball", **more)], model=tiny.model)
        for more in ({}, {"model": pocket})
    )
    assert made.provenance["sound"]["model"] == "pocket"
    assert named.provenance["sound"]["model"] == str(pocket)
    assert np.array_equal(made.sound.samples, named.sound.samples)
    target = tmp_path / "a.mp4"
    asked = ("--size", "32x32", "--frames", "9", "--steps", "1", "-p", "audio", "-o", str(target))
    done = hy("generate", "a ball", *asked)
    assert done.exit_code == 0, done.stderr
    assert abs(lasts(target, "audio") - 9 / 8) < 0.1


def test_hy_eval_world_measures_it(pocket, hy):
    done = hy(
        "eval", "world", "--task", "audio", "--count", "2", "--frames", "9", "--size", "32x32", "--json"
    )
    assert done.exit_code == 0, done.stderr
    (group,) = json.loads(done.stdout)["groups"]
    assert group["count"] == 2 and {"silence", "sound"} & set(group["attributes"])


def test_without_it_one_line_says_what_to_do(hy, monkeypatch, tiny, tmp_path):
    monkeypatch.setattr(models, "POCKET", tmp_path / "pocket")
    with pytest.raises(MissingError, match="no model of its own"):
        Audio().validate(tiny.request)
    source = clip(tmp_path / "a.mp4")
    asked = ("generate", "a ball", "-p", "audio", "-o", str(tmp_path / "b.mp4"))
    for command in (("audio", str(source)), asked):
        done = hy(*command)
        assert done.exit_code == 3 and len(done.stderr.strip().splitlines()) <= 2, done
        assert "no model of its own" in done.stderr and "pocket-audio-dit" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_it_is_sampled_as_it_states_unless_asked_otherwise(pocket, copy):
    own, asked = (
        load_generator(None, "", device="cpu"),
        load_generator(None, "", steps=7, cfg=0.0, device="cpu"),
    )
    assert (own.steps, own.cfg, own.seconds) == (2, 2.0, 1.0)
    assert (asked.steps, asked.cfg) == (7, 0.0)
    table = json.loads((copy / CONFIG_FILE).read_text())
    (copy / CONFIG_FILE).write_text(json.dumps({k: v for k, v in table.items() if k not in ("steps", "cfg")}))
    plain = load_generator(copy, "", device="cpu")
    assert (plain.steps, plain.cfg) == (50, 4.5)
    for wrong in ({"steps": 0}, {"steps": 1001}, {"cfg": -1.0}):
        (copy / CONFIG_FILE).write_text(json.dumps({**table, **wrong}))
        with pytest.raises(HyError, match="is not between"):
            load_generator(copy, "", device="cpu")


def test_it_runs_in_fp32_on_a_cpu(pocket):
    made = load_generator(None, "a ball", device="cpu")
    parts = [*made.dit.parameters(), *made.codec.parameters(), made.text]
    assert {part.dtype for part in parts} == {torch.float32}


def test_a_folder_reads_with_a_model_that_it_names(copy, monkeypatch, tmp_path):
    ours, words = load_generator(copy, "a ball", device="cpu"), language_model("pocket")
    monkeypatch.setenv(FOLDERS, str(tmp_path))
    core_model(tmp_path / "other")
    state(copy, "other", fingerprint(words))
    assert torch.equal(load_generator(copy, "a ball", device="cpu").text, ours.text)
    state(copy, "other", "0")
    with pytest.raises(HyError, match="isn't the one that .* was trained with"):
        load_generator(copy, "a ball", device="cpu")
    shutil.rmtree(tmp_path / "other/llm")
    (tmp_path / "other/dit.safetensors").touch()
    for name, said in (("nowhere", "no model 'nowhere'"), ("other", "no llm/")):
        state(copy, name)
        with pytest.raises(MissingError, match=f"{CONFIG_FILE}: text_encoder: .*{said}") as caught:
            load_generator(copy, "a ball", device="cpu")
        assert "\n" not in str(caught.value) and caught.value.hint
    shutil.copytree(words, copy / "llm")  # its own comes before what it names
    assert torch.equal(load_generator(copy, "a ball", device="cpu").text, ours.text)


def test_states_of_another_size_are_refused(copy):
    config = load_network(AudioDiT, copy / models.OWN).config
    save_network(AudioDiT(replace(config, text_dim=8)), copy / models.OWN)
    with pytest.raises(HyError, match=f"states of size {config.text_dim}, the network of .* takes 8"):
        load_generator(copy, "a ball", device="cpu")


def test_a_folder_that_reads_with_nothing_says_so(copy):
    state(copy, None)
    with pytest.raises(MissingError, match="no text encoder"):
        load_generator(copy, "a ball", device="cpu")


def test_the_shipped_model_is_small_and_opens(tmp_path):
    if not (models.POCKET / models.OWN).is_file():
        pytest.skip("this checkout has no trained sound model: hy_audio/pocket is not there")
    files = [path for path in models.POCKET.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < MOST
    assert {path.name for path in files} == {models.OWN, CONFIG_FILE, MelCodec.VAE, MelCodec.VOCODER}
    made = load_generator(None, "a ball bounces", steps=1, device="cpu")
    seen = {
        name: [sampler.prepare(np.zeros((64, 64, 3), np.uint8))] * 4
        for name, sampler in made.samplers.items()
    }
    sound = made.generate(seen, 0.5, 0)
    assert sound.shape[1] >= 0.5 * made.rate and np.isfinite(sound).all()
