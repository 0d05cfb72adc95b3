"""`hy audio` and `hy generate -p audio` make sound with a model's folder, and say early what is missing."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from audio.clips import clip, lasts, packets, tone
from hy_audio.codec import MelCodec, MelConfig, MelVAE, MelVAEConfig, Vocoder, VocoderConfig
from hy_audio.dit import AudioDiT, AudioDiTConfig
from hy_audio.models import kind, load_generator
from hy_audio.plugin import Audio
from hy_audio.weights import save_network
from hy_core import generate
from hy_core.errors import MissingError, UsageError
from hy_core.media import timeline
from hy_core.plugins import Plugins


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny random model of the real classes in a folder: DiT, codec, CLIP and T5."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPVisionConfig,
        CLIPVisionModel,
        PreTrainedTokenizerFast,
        T5Config,
        T5EncoderModel,
    )

    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    mel = MelConfig(sample_rate=8000, bins=20, n_fft=128, window=128, hop=64, fmax=4000)
    vocoder = VocoderConfig(
        mel=mel, channels=16, rates=(8, 8), kernels=(16, 16), block_kernels=(3,), dilations=((1, 3, 5),)
    )
    codec = MelCodec(MelVAE(MelVAEConfig(bins=20, channels=4, width=16)), Vocoder(vocoder)).eval()
    dit = AudioDiT(
        AudioDiTConfig(
            channels=4,
            rate=62.5,
            width=16,
            heads=2,
            depth_triple=1,
            depth_single=1,
            text_dim=6,
            visual_dim=32,
        )
    )
    for parameter in [*codec.parameters(), *dit.parameters()]:
        torch.nn.init.normal_(parameter, std=0.2)
    save_network(dit, folder / "dit.safetensors")
    codec.save(folder / "codec")
    sides = {"intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16}
    CLIPVisionModel(CLIPVisionConfig(hidden_size=32, patch_size=8, **sides)).save_pretrained(folder / "clip")
    words = T5Config(vocab_size=9, d_model=6, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    T5EncoderModel(words).save_pretrained(folder / "t5")
    core = Tokenizer(models.WordLevel({"<pad>": 0, "rain": 1, "dog": 2, "<unk>": 3}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", unk_token="<unk>")
    tokenizer.save_pretrained(folder / "t5")
    return folder


def test_the_contract(contract, model):
    contract(Audio, model=model)


def test_the_command_and_the_plugin_start_without_torch():
    code = (
        "import sys, hy_audio.plugin, hy_audio.cli, hy_audio.models\n"
        "heavy = [name for name in ('torch', 'librosa', 'transformers') if name in sys.modules]\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_hy_audio_gives_a_clip_its_sound(hy, model, tmp_path):
    source = clip(tmp_path / "a.mp4", 75, 25, tone(3))
    common = ("--model", str(model), "--prompt", "rain", "--steps", "2")
    done = hy("audio", str(source), *common, "-o", str(tmp_path / "b.mp4"))
    assert done.exit_code == 0, done
    assert done.stdout.strip() == str(tmp_path / "b.mp4")
    assert packets(tmp_path / "b.mp4") == packets(source)
    assert abs(lasts(tmp_path / "b.mp4", "audio") - 3) < 0.04
    done = hy("audio", str(source), *common, "--json", "--existing", "keep", "--stereo")
    assert json.loads(done.stdout)["path"] == str(tmp_path / "a-sound.mp4")
    assert timeline.measure(tmp_path / "a-sound.mp4").sounds == 2
    done = hy("audio", str(source), *common, "-o", str(tmp_path / "c.flac"), "--seed", str(2**62))
    assert done.exit_code == 0 and timeline.sound_format(tmp_path / "c.flac") == (8000, 1)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["{clip}", "--model", "/nowhere"], 3, "no such folder"),
        (["{clip}", "--model", "{empty}"], 3, "no audio model"),
        (["/nowhere.mp4", "--model", "{model}"], 3, "no such file"),
        (["{clip}", "--model", "{model}", "-o", "x.gif"], 2, "can't write .gif"),
        (["{clip}", "--model", "{model}", "-o", "{clip}"], 2, "the clip itself"),
        (["{clip}", "--model", "{model}", "--lufs", "5"], 2, "--lufs"),
    ],
)
def test_what_is_wrong_is_one_line_before_any_weight_is_read(hy, model, tmp_path, arguments, code, said):
    (tmp_path / "empty").mkdir()
    names = {"clip": clip(tmp_path / "a.mp4"), "model": model, "empty": tmp_path / "empty"}
    done = hy("audio", *[text.format(**names) for text in arguments])
    assert done.exit_code == code and said in done.stderr and "loading" not in done.stderr, done
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "empty"]


def test_a_generated_clip_has_sound_that_its_seed_repeats(model, tiny):
    made = Audio(model=model, prompt="rain", steps=2)
    made.validate(tiny.request)
    one, again = (generate(tiny.request, [made], model=tiny.model) for _ in range(2))
    seconds = len(one.frames) / one.fps
    assert one.sound.rate == 8000 and one.sound.samples.shape == (1, round(seconds * 8000))
    assert np.array_equal(one.sound.samples, again.sound.samples)
    assert one.provenance["sound"]["prompt"] == "rain"
    other = generate(tiny.request, [Audio(model=model, prompt="rain", steps=2, seed=5)], model=tiny.model)
    assert not np.array_equal(one.sound.samples, other.sound.samples)
    plain = generate(tiny.request, model=tiny.model)
    assert np.array_equal(plain.frames, one.frames)  # sound changes no picture


def test_a_folder_without_a_model_is_refused(tiny, tmp_path):
    with pytest.raises(UsageError, match="--audio-model"):
        Audio(model=tmp_path).validate(tiny.request)


def test_folders_are_told_apart(tmp_path, model):
    (tmp_path / "hunyuanvideo_foley_xl.pth").write_bytes(b"")
    assert kind(tmp_path) == "foley" and kind(model) == "own"
    with pytest.raises(MissingError, match="vae_128d_48k.pth"):
        load_generator(tmp_path, "rain", device="cpu")


def test_stages_are_registered():
    plugins = Plugins()
    plugins.conditioners(["audio"])
    assert {"sound-presence", "sound-bandwidth", "sound-kind", "sound-consistency", "sound-caption"} <= set(
        plugins.stages()
    )
    for name, stage in plugins.stages().items():
        if name.startswith("sound-"):
            assert stage.name == name


@pytest.mark.parametrize(("name", "warned"), [("a.gif", True), ("a.mp4", False)])
def test_a_file_that_holds_no_sound_is_told_before_the_run(hy, model, tmp_path, monkeypatch, name, warned):
    monkeypatch.chdir(tmp_path)
    done = hy("generate", "x", "-p", "audio", "--audio-model", str(model), "-o", name, "--dry-run")
    assert done.exit_code == 0, done
    assert ("hold no sound: that of audio" in done.stderr) == warned
