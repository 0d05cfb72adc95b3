"""The recipes of the small sound models train, go on after a stop, export, and together make a model's folder."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from audio.test_pocket import core_model
from hy_audio.codec import LogMel, MelCodec, MelConfig, VocoderConfig, load_vocoder
from hy_audio.dit.generator import DiTAudioGenerator
from hy_audio.dit.model_config import AudioModelConfig
from hy_audio.dit.text import language_model
from hy_audio.models import kind, load_generator
from hy_audio.soundtrack import generate_soundtrack
from hy_audio.soundtrack_options import SoundtrackOptions
from hy_audio.training.dit import AudioFlowObjective
from hy_audio.training.mel_vae import MelVAEObjective
from hy_audio.training.sounds import waveforms
from hy_audio.training.vocoder import VocoderObjective
from hy_audio.weights import to_storage_dtype
from hy_core.data import Clip, SourceSpec
from hy_core.errors import HyError, MissingError, UsageError
from hy_core.models import fingerprint
from hy_core.tables import from_table
from hy_core.weights.files import load_state
from hy_train import recipe
from hy_train.fit import run

pytest.importorskip("librosa")
SMALL = {
    "pocket-mel-vae": {"model.width": 16, "data.seconds": 0.512},
    "pocket-vocoder": {
        "model.channels": 16,
        "options.width": 0.0625,
        "data.seconds": 0.128,
    },
    "pocket-audio-dit": {
        "model.width": 32,
        "model.heads": 2,
        "model.depth_triple": 1,
        "model.depth_single": 1,
        "data.sources.world-sound.seconds": [0.6, 0.9],
        "optim.lr": 0.1,  # two steps that show: words enter by layers that begin at zero
        "optim.muon_lr": 0.1,
    },
}


def small(name, **more):
    """A recipe that ships, made tiny."""
    sets = {"steps": 2, "batch": 2, "eval_every": 0, "optim.warmup": 0, **SMALL[name], **more}
    return recipe.load(name, [f"{key}={json.dumps(value)}" for key, value in sets.items()])


def train(objective, settings, folder):
    return run(settings, objective(settings, folder), folder, quiet=True)


def weights(folder):
    return torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder with all three runs."""
    home = tmp_path_factory.mktemp("runs")
    train(MelVAEObjective, small("pocket-mel-vae"), home / "vae")
    train(VocoderObjective, small("pocket-vocoder"), home / "vocoder")
    settings = small("pocket-audio-dit", **parts(home))
    train(AudioFlowObjective, settings, home / "dit")
    return home


def parts(home):
    return {"data.vae": str(home / "vae/export"), "data.vocoder": str(home / "vocoder/export")}


def test_hy_train_knows_the_recipes_and_their_objectives(hy):
    listed = hy("train", "--list").stdout
    assert {name for name in SMALL if name in listed} == set(SMALL)
    done = hy("train", "pocket-vocoder", "--dry-run", "--json", "--set", "options.width=0.0625")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["parameters"] > 400_000
    model_config = from_table(VocoderConfig, recipe.load("pocket-vocoder").model, "model")
    assert model_config == VocoderConfig.named["pocket"]


def test_the_three_exports_are_a_model(trained, monkeypatch):
    model = trained / "dit/export"
    model_config = AudioModelConfig.read(model)
    assert kind(model) == "own" and model_config.seconds == 4.0
    assert (model_config.text_encoder, model_config.text_encoder_hash) == (
        "pocket",
        fingerprint(language_model("pocket")),
    )
    assert sorted(path.name for path in model.iterdir()) == ["audio.json", "codec", "dit.safetensors"]
    formats = {
        path.name: {one.dtype for one in load_state(path).values()} for path in model.rglob("*.safetensors")
    }
    assert formats == {
        "dit.safetensors": {torch.bfloat16},
        "vae.safetensors": {torch.float16},
        "vocoder.safetensors": {torch.float16},
    }
    report = json.loads((trained / "dit/report.json").read_text())
    assert report["step"] == 2 and report["loss_0.5"] > 0
    codec = MelCodec.load(model / "codec")
    assert float(codec.vae.latent_std.min()) > 0 and float(codec.vae.latent_mean.abs().max()) > 0
    latents, decode = [], MelCodec.to_waveform
    monkeypatch.setattr(MelCodec, "to_waveform", lambda self, z: (latents.append(z), decode(self, z))[1])
    frames = np.zeros((12, 32, 32, 3), np.uint8)
    made = generate_soundtrack(
        frames, 12.0, load_generator(model, "a ball", steps=2), SoundtrackOptions(lufs=None)
    )
    assert made.samples.shape == (1, 16000) and made.rate == 16000 and np.isfinite(made.samples).all()
    generate_soundtrack(frames, 12.0, load_generator(model, "", steps=2), SoundtrackOptions(lufs=None))
    told, untold = latents  # a vocoder of two steps makes the same of either
    assert (told - untold).abs().max() > 1e-3


def test_hy_audio_and_hy_generate_load_it(trained, hy, tmp_path):
    from audio.clips import clip, lasts

    model, source = str(trained / "dit/export"), clip(tmp_path / "a.mp4", 20, 10)
    done = hy("audio", str(source), "--model", model, "--steps", "1", "-o", str(tmp_path / "b.mp4"))
    assert done.exit_code == 0, done.stderr
    assert abs(lasts(tmp_path / "b.mp4", "audio") - 2) < 0.1
    asked = ("--size", "32x32", "--frames", "9", "--steps", "1", "-p", "audio", "--audio-model", model)
    target = tmp_path / "c.mp4"
    done = hy("generate", "a ball", *asked, "--audio-steps", "1", "-o", str(target))
    assert done.exit_code == 0, done.stderr
    assert abs(lasts(target, "audio") - 9 / 8) < 0.1


def test_its_sound_is_measured_on_real_and_on_generated_clips(trained, hy):
    asked = ("--task", "audio", "--count", "2", "--frames", "9", "--size", "32x32", "--steps", "1", "--json")
    own = ("--option", f"model={trained / 'dit/export'}", "--option", "steps=1")
    real, made = (
        json.loads(hy("eval", "world", *asked, *own, *more).stdout) for more in ((), ("--generated",))
    )
    assert (real["model"], made["model"], real["plugin"]) == (None, "pocket", "audio")
    for summary, generated in ((real, False), (made, True)):
        (group,) = summary["groups"]
        assert group["generated"] is generated and group["count"] == 2
        assert {"silence", "sound"} & set(group["attributes"])


def test_an_adversarial_run_in_two_parts_equals_one_run(tmp_path):
    constant = {"optim.decay": "constant"}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(VocoderObjective, small("pocket-vocoder", steps=4, **constant), whole)
    train(VocoderObjective, small("pocket-vocoder", steps=2, **constant), parts)
    half = weights(parts)
    train(VocoderObjective, small("pocket-vocoder", steps=4, **constant), parts)
    once, twice = weights(whole), weights(parts)
    assert all(torch.equal(once[key], twice[key]) for key in once)
    for network in ("model.", "critic."):
        assert any(not torch.equal(half[key], twice[key]) for key in half if key.startswith(network))
    saved = torch.load(whole / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 4 and len(saved["optimizer_states"]) == len(saved["lr_schedulers"]) == 2
    assert not any(key.startswith("critic") for key in saved["callbacks"]["Average"]["average"])


def flags(folder, **more):
    """The command line of a tiny vocoder's run."""
    sets = {
        "batch": 2,
        "eval_every": 0,
        "optim.warmup": 0,
        "save_every": 1,
        **SMALL["pocket-vocoder"],
        **more,
    }
    command = [
        sys.executable,
        "-m",
        "hy_core",
        "train",
        "pocket-vocoder",
        "-q",
        "--json",
        "--out",
        str(folder),
    ]
    return command + [part for key, value in sets.items() for part in ("--set", f"{key}={json.dumps(value)}")]


@pytest.mark.slow
def test_a_killed_adversarial_run_goes_on(tmp_path):
    first = subprocess.Popen(flags(tmp_path, steps=30), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not (tmp_path / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    first.kill()
    first.wait()
    assert 0 < torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] < 30
    subprocess.run(flags(tmp_path, steps=30), check=True, stdout=subprocess.DEVNULL)
    train(VocoderObjective, small("pocket-vocoder", steps=30, save_every=1), tmp_path / "whole")
    once, twice = weights(tmp_path / "whole"), weights(tmp_path)
    assert all(torch.equal(once[key], twice[key]) for key in once)


@pytest.mark.slow
def test_two_processes_train_against_one_critic(tmp_path):
    done = subprocess.run(flags(tmp_path, steps=3, devices=2), check=True, capture_output=True, text=True)
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["step"] == 3
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 3


def test_each_half_of_an_adversarial_step_trains_its_own_network(tmp_path):
    settings = small("pocket-vocoder")
    objective = VocoderObjective(settings, tmp_path)
    batch = objective.batch(0)
    loss, _ = objective.critic_loss(batch, torch.Generator())
    loss.backward()
    assert all(p.grad is None for p in objective.model.parameters())
    assert all(p.grad is not None for p in objective.critic.parameters())
    first = next(objective.critic.parameters()).grad.clone()
    objective.critic.requires_grad_(False)
    loss, logs = objective.loss(batch, torch.Generator())
    loss.backward()
    assert all(p.grad is not None for n, p in objective.model.named_parameters() if p.requires_grad)
    assert torch.equal(first, next(objective.critic.parameters()).grad)
    assert set(logs) == {"mel", "features", "adversarial"} and logs["mel"] > logs["adversarial"]
    assert loss.item() == pytest.approx(sum(logs.values()), rel=1e-4)


def test_what_a_vocoder_exports_is_what_was_learned(trained):
    average = torch.load(trained / "vocoder/last.ckpt", weights_only=True)["callbacks"]["Average"]["average"]
    objective = VocoderObjective(small("pocket-vocoder"), trained / "vocoder")
    objective.model.load_state_dict(average)
    mel = torch.randn(1, 80, 7)
    exported = load_vocoder(trained / "vocoder/export/vocoder.safetensors", dtype=torch.float32)
    with torch.no_grad():  # fp16 in the file
        torch.testing.assert_close(exported(mel), objective.model.eval()(mel), atol=1e-4, rtol=1e-2)


def test_a_model_of_the_core_that_is_a_folder_is_copied(trained, tmp_path):
    more = {"data.text_encoder": str(core_model(tmp_path / "core")), "data.steps": 3, "data.cfg": 1.5}
    settings = small("pocket-audio-dit", **parts(trained), **more)
    objective = AudioFlowObjective(settings, tmp_path)
    objective.prepare()
    objective.export(tmp_path / "export")
    assert (
        AudioModelConfig.read(tmp_path / "export").text_encoder is None and (tmp_path / "export/llm").is_dir()
    )
    moved = (tmp_path / "export").rename(tmp_path / "moved")
    made = load_generator(moved, "a ball", device="cpu")
    assert len(made.text) and (made.steps, made.cfg) == (3, 1.5)
    with pytest.raises(HyError, match="the network of .* takes 8"):
        AudioFlowObjective(
            small("pocket-audio-dit", **parts(trained), **{**more, "model.text_dim": 8}), tmp_path / "other"
        ).prepare()


def test_what_fp16_cannot_hold_is_written_as_it_is(tmp_path):
    state = {"a": torch.tensor([1.0, 7e4]), "b": torch.tensor([0.1])}
    assert {one.dtype for one in to_storage_dtype(state, torch.float16).values()} == {torch.float32}
    assert {one.dtype for one in to_storage_dtype(state, torch.bfloat16).values()} == {torch.bfloat16}
    assert to_storage_dtype(state, None) is state


def test_a_start_in_the_data_table_is_no_longer_a_key(tmp_path):
    with pytest.raises(UsageError, match="start"):
        VocoderObjective(small("pocket-vocoder", **{"data.start": "runs/pocket-vocoder/export"}), tmp_path)


def test_log_mels_are_fp32_in_mixed_precision():
    mel, wave = LogMel(MelConfig()), 0.1 * torch.randn(1, 4096)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(mel(wave), mel(wave.double())) and mel(wave).dtype == torch.float32
        found = mel(wave)
    assert torch.equal(found, mel(wave))


def test_a_vocoder_without_discriminators_learns_to_be_silent_and_goes_on(tmp_path):
    """The published losses but for the discriminators; and a second run from the first one's export."""
    more = {"options.width": 0, "options.windows": [256], "options.floor": 1e-4, "data.batches": 3}
    settings = small("pocket-vocoder", steps=3, **more)
    objective = VocoderObjective(settings, tmp_path)
    assert objective.critic is None
    loss, logs = objective.loss(objective.batch(0), torch.Generator())
    assert loss.item() == pytest.approx(logs["mel"]) and logs["features"] == logs["adversarial"] == 0
    real = objective.batch(0).real
    one, other = objective._compared(real), objective._compared(torch.zeros_like(real))
    assert [mel.shape[1] for mel in one] == [80, 32] and min(float(mel.min()) for mel in other) > -9.3
    assert all(float((mel - mel[0, 0, 0]).abs().max()) == 0 for mel in other)
    train(VocoderObjective, settings, tmp_path / "first")
    start = {**more, "options.width": 0.0625, "init_from": str(tmp_path / "first/export")}
    second = VocoderObjective(small("pocket-vocoder", **start), tmp_path / "second")
    mel, first = torch.randn(1, 80, 5), load_vocoder(tmp_path / "first/export/vocoder.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(second.model(mel), first.float()(mel), atol=1e-5, rtol=1e-4)
    second.critic_loss(second.batch(0), torch.Generator())[0].backward()
    with pytest.raises(UsageError, match="another vocoder"):
        VocoderObjective(small("pocket-vocoder", **{**start, "model.channels": 32}), tmp_path)
    with pytest.raises(MissingError, match=r"vocoder.safetensors is missing"):
        VocoderObjective(small("pocket-vocoder", **{**start, "init_from": "/nowhere"}), tmp_path)
    with pytest.raises(UsageError, match="a floor of"):
        VocoderObjective(small("pocket-vocoder", **{"options.floor": 2.0}), tmp_path)


def test_so_many_batches_are_drawn_and_come_again(trained):
    more = {"data.batches": 2}
    sounds = MelVAEObjective(small("pocket-mel-vae", **more), trained)
    drawn = {sounds.batch(step).numpy().tobytes() for step in range(12)}
    assert len(drawn) == 2 and len(sounds.kept) == 2
    clips = AudioFlowObjective(small("pocket-audio-dit", **parts(trained), **more), trained / "dit")
    clips.prepare()
    assert len({id(clips.batch(step)) for step in range(12)}) == 2
    again = AudioFlowObjective(small("pocket-audio-dit", **parts(trained), **more), trained / "dit")
    again.prepare()
    assert torch.equal(clips.batch(7).latents, again.batch(7).latents)


def test_a_dit_goes_on_from_the_shipped_one_or_an_export(trained, tmp_path):
    once = AudioFlowObjective(small("pocket-audio-dit", **parts(trained)), tmp_path / "once")
    once.prepare()
    once.export(tmp_path / "export")
    table = {"model": {}, "init_from": str(tmp_path / "export")}
    again = AudioFlowObjective(small("pocket-audio-dit", **table), tmp_path / "again")
    again.prepare()
    for key, value in once.dit.state_dict().items():
        torch.testing.assert_close(again.dit.state_dict()[key], value.bfloat16().float(), rtol=0, atol=0)
    drawn = [one.batch(1).latents for one in (once, again)]  # the codec is the start's, in 16 bits
    torch.testing.assert_close(*drawn, rtol=0.02, atol=0.02)
    shipped = AudioFlowObjective(small("pocket-audio-dit", **{**table, "init_from": "pocket"}), tmp_path)
    assert shipped.config == shipped.model.config and shipped.model.training
    with pytest.raises(UsageError, match="determines the model"):
        AudioFlowObjective(small("pocket-audio-dit", **{"init_from": "pocket"}), tmp_path)
    with pytest.raises(MissingError, match="no such folder"):
        AudioFlowObjective(small("pocket-audio-dit", **{**table, "init_from": "/nowhere"}), tmp_path)


def test_batches_come_from_seed_step_and_rank(trained):
    settings = small("pocket-audio-dit", **parts(trained))
    one, again = (AudioFlowObjective(settings, trained / "dit") for _ in range(2))
    for objective in (one, again):
        objective.prepare()
    first, same = one.batch(3), again.batch(3)
    assert torch.equal(first.latents, same.latents)
    assert all(torch.equal(a, b) for a, b in zip(first.visual, same.visual, strict=True))
    for other in (one.batch(4), one.batch(3, 1, 2)):
        assert other.latents.shape != first.latents.shape or not torch.equal(other.latents, first.latents)
    seconds = first.latents.shape[2] / one.config.rate
    assert abs(len(first.sync[0]) / 25 - seconds) < 0.1 and abs(len(first.visual[0]) / 8 - seconds) < 0.2
    sounds = VocoderObjective(small("pocket-vocoder"), trained)
    assert torch.equal(sounds.batch(5).real, sounds.batch(5).real)
    assert not torch.equal(sounds.batch(5).real, sounds.batch(5, 1, 2).real)


def test_a_row_that_loses_its_pictures_loses_their_timing(trained):
    settings = small("pocket-audio-dit", **parts(trained), **{"options.condition_dropout": 1.0})
    objective = AudioFlowObjective(settings, trained / "dit")
    objective.prepare()
    batch = objective.batch(0)
    for weight in objective.dit.parameters():  # no block is the identity any more
        torch.nn.init.normal_(weight, std=0.2)
    loss, _ = objective.loss(batch, torch.Generator().manual_seed(0))
    loss.backward()
    dit = objective.dit
    assert all(
        float(empty.grad.abs().sum()) > 0 for empty in (dit.empty_visual, dit.empty_text, dit.empty_sync)
    )
    assert not any(float(p.grad.abs().sum()) for p in dit.visual_in.parameters() if p.grad is not None)


class Teacher:
    """Loudness of pieces of 10 ms and its square."""

    rate = 8000

    def __call__(self, samples):
        level = np.abs(samples[: len(samples) // 80 * 80]).reshape(-1, 80).mean(1)
        return np.stack([level + 0.1, level**2], 1)


def test_tokens_are_aligned_with_a_teacher(trained, tmp_path):
    more = {"options.repa_targets": f"{__name__}:Teacher", "options.repa_block": 2}
    settings = small("pocket-audio-dit", **parts(trained), **more)
    train(AudioFlowObjective, settings, tmp_path)
    state = weights(tmp_path)
    assert any(key.startswith("model.align.") for key in state)
    assert (
        DiTAudioGenerator.load(tmp_path / "export", "a ball", steps=1).rate == 16000
    )  # nothing of it is exported
    with pytest.raises(UsageError, match=r"options.repa_block = 3"):
        AudioFlowObjective(
            small("pocket-audio-dit", **parts(trained), **{**more, "options.repa_block": 3}), tmp_path
        )


def test_what_does_not_fit_is_one_line(trained, tmp_path):
    with pytest.raises(MissingError, match="vae.safetensors is missing"):
        AudioFlowObjective(small("pocket-audio-dit", **{"data.vae": "/nowhere"}), tmp_path).prepare()
    with pytest.raises(UsageError, match="20 channels"):
        AudioFlowObjective(
            small("pocket-audio-dit", **parts(trained), **{"model.channels": 8}), tmp_path
        ).prepare()
    with pytest.raises(UsageError, match="model.bins"):
        MelVAEObjective(small("pocket-mel-vae", **{"model.bins": 40}), tmp_path)
    with pytest.raises(UsageError, match="data.source"):
        MelVAEObjective(small("pocket-mel-vae", **{"data.sources.world-sound.colours": 3}), tmp_path)
    with pytest.raises(UsageError, match="no dataset .world-sounds."):
        MelVAEObjective(
            small("pocket-mel-vae", **{"data.source": "world-sounds", "data.sources": {}}), tmp_path
        )
    with pytest.raises(HyError, match="have no sound"):
        waveforms([Silent()], 16000, 100, np.random.default_rng(0))
    with pytest.raises(UsageError, match="adversarial"):
        train(VocoderObjective, small("pocket-vocoder", precision="16-mix"), tmp_path)
    (tmp_path / "audio.json").write_text('{"seconds": -1}')
    with pytest.raises(HyError, match="seconds: -1.* is not between"):
        AudioModelConfig.read(tmp_path)


def test_the_worlds_bounces_are_at_no_fixed_moment():
    from hy_world.sound import impacts
    from hy_world.sources.sounding import SoundingSource

    clips = SoundingSource(SourceSpec("world-sound", seed=1, count=100, group=4, options={"impacts": 1.0}))
    moments, lengths = set(), set()
    for index in range(40):
        clip, known = clips[index], clips[index].annotations()
        samples = clip.sound().samples.shape[1]
        seconds = samples / clip.sound().rate
        assert seconds == pytest.approx(clip.frames / clip.fps, abs=1e-3)
        assert samples == clips[index // 4 * 4].sound().samples.shape[1]
        lengths.add(samples)
        for moment, _ in impacts(clip.scene, known["whole"], clip.fps):
            if 0 <= moment - known["start"] / clip.fps < seconds:
                moments.add(round((moment - known["start"] / clip.fps) / seconds, 2))
    assert len(lengths) >= 8 and len(moments) > 15
    one, same = clips[7], clips[7]
    assert np.array_equal(one.sound().samples, same.sound().samples)
    assert np.array_equal(one.video(), same.video())


class Silent(Clip):
    """A clip without sound."""

    fps = 8.0

    def video(self):
        return np.zeros((1, 8, 8, 3), np.uint8)

    def caption(self, rng):
        return ""
