"""The tri-stream DiT makes sound for windows of a clip: lengths, noise, conditions and a whole model folder."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hy_audio.codec import MelCodec, MelConfig, MelVAE, MelVAEConfig, Vocoder, VocoderConfig
from hy_audio.dit import AudioDiT, AudioDiTConfig
from hy_audio.dit.generator import DiTAudioGenerator, FeatureExtractor
from hy_audio.encoders.pixels import PixelFeatures
from hy_audio.soundtrack import generate_soundtrack
from hy_audio.soundtrack_options import SoundtrackOptions
from hy_audio.weights import save_network
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import CLIPVisionConfig, CLIPVisionModel, PreTrainedTokenizerFast, T5Config, T5EncoderModel

MEL = MelConfig(sample_rate=8000, bins=20, n_fft=128, window=128, hop=64, fmax=4000)
PIXELS = PixelFeatures(4, 4)


@pytest.fixture(scope="module")
def codec() -> MelCodec:
    torch.manual_seed(0)
    vocoder = VocoderConfig(
        mel=MEL, channels=16, rates=(8, 8), kernels=(16, 16), block_kernels=(3,), dilations=((1, 3, 5),)
    )
    vae = MelVAE(MelVAEConfig(bins=20, channels=4, width=16))
    codec = MelCodec(vae, Vocoder(vocoder)).eval().requires_grad_(False)
    for parameter in codec.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return codec


def network(**settings: int) -> AudioDiT:
    torch.manual_seed(0)
    config = AudioDiTConfig(
        channels=4, rate=62.5, width=16, heads=2, depth_triple=1, depth_single=1, text_dim=6, **settings
    )
    dit = AudioDiT(config)
    for parameter in dit.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return dit.eval().requires_grad_(False)


def generator(codec: MelCodec, **settings: int) -> DiTAudioGenerator:
    extractor = FeatureExtractor(8.0, PIXELS.prepare, PIXELS.encode)
    fast = FeatureExtractor(25.0, PIXELS.prepare, PIXELS.encode)
    dit = network(visual_dim=PIXELS.size, sync_dim=PIXELS.size)
    return DiTAudioGenerator(
        dit, codec, torch.ones(3, 6), None, extractor, fast, steps=2, seconds=1.0, **settings
    )


def clip(count: int = 60) -> np.ndarray:
    frames = np.zeros((count, 32, 32, 3), np.uint8)
    for i in range(count):
        frames[i, i % 24 : i % 24 + 8, 8:16] = 255
    return frames


def test_sound_is_as_long_as_the_clip_and_its_noise_is_the_seeds(codec: MelCodec) -> None:
    """Through the application's windows: 2.5 s of frames in windows of one second."""
    plain = SoundtrackOptions(lufs=None, cuts=False)
    first = generate_soundtrack(clip(), 24.0, generator(codec), plain)
    again = generate_soundtrack(clip(), 24.0, generator(codec), plain)
    other = generate_soundtrack(clip(), 24.0, generator(codec, seed=1), plain)
    assert first.samples.shape == (1, 20000) and first.rate == 8000
    np.testing.assert_array_equal(first.samples, again.samples)
    assert np.abs(first.samples - other.samples).max() > 1e-4


def test_pictures_are_heard(codec: MelCodec) -> None:
    one = generator(codec)
    frames = clip(25)
    seen = {
        name: [one.feature_extractors[name].prepare(frame) for frame in frames[:count]]
        for name, count in (("visual", 8), ("sync", 25))
    }
    sound = one.generate(seen, 1.0, 0)
    assert sound.shape == (1, 63 * 128) and sound.dtype == np.float32  # 62.5 latents and none missing
    still = {name: values[:1] * len(values) for name, values in seen.items()}
    assert np.abs(one.generate(still, 1.0, 0) - sound).max() > 1e-5


def test_it_makes_sound_for_words_alone(codec: MelCodec) -> None:
    words = DiTAudioGenerator(network(visual_dim=5), codec, torch.ones(3, 6), steps=2)
    assert words.samplers == {} and words.generate({}, 0.5, 0).shape == (1, 32 * 128)


def test_pixels_are_colours_and_changes() -> None:
    found = PIXELS.encode([PIXELS.prepare(frame) for frame in clip(3)])
    assert found.shape == (3, PIXELS.size) == (3, 64)
    assert float(found[0, 48:].abs().max()) == 0 and float(found[1, 48:].abs().max()) > 0
    assert found[:, :48].min() == -1 and found[:, :48].max() == 1


def test_a_model_folder(codec: MelCodec, tmp_path) -> None:
    """DiT, codec, CLIP and T5 from one folder; a prompt is heard."""
    save_network(network(visual_dim=32), tmp_path / "dit.safetensors")
    codec.save(tmp_path / "codec")
    sides = {"intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16}
    CLIPVisionModel(CLIPVisionConfig(hidden_size=32, patch_size=8, **sides)).save_pretrained(
        tmp_path / "clip"
    )
    T5EncoderModel(
        T5Config(vocab_size=9, d_model=6, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    ).save_pretrained(tmp_path / "t5")
    core = Tokenizer(models.WordLevel({"<pad>": 0, "rain": 1, "dog": 2, "<unk>": 3}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", unk_token="<unk>")
    tokenizer.save_pretrained(tmp_path / "t5")
    sounds = []
    for prompt in ("rain", "dog", ""):
        one = DiTAudioGenerator.load(tmp_path, prompt, steps=2, seconds=1.0)
        assert one.samplers["visual"].fps == 4 and one.rate == 8000
        pictures = [one.samplers["visual"].prepare(frame) for frame in clip(4)]
        sounds.append(one.generate({"visual": pictures}, 1.0, 0))
    assert np.abs(sounds[0] - sounds[1]).max() > 1e-4 and np.abs(sounds[0] - sounds[2]).max() > 1e-4
