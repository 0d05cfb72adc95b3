"""The released Foley from a folder of its files to sound: tiny networks in the official layouts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hy_audio.foley import DACVAE, DACConfig, Foley, FoleyConfig, Synchformer, SynchformerConfig
from hy_audio.foley.generator import FoleyAudioGenerator
from hy_audio.foley.weights import OFFICIAL
from hy_core.errors import MissingError
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    ClapTextConfig,
    ClapTextModelWithProjection,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
    SiglipVisionModel,
)

SIDES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    """All files under their official names."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("foley")
    config = FoleyConfig(
        width=32, heads=2, depth_triple=2, depth_single=1, latent_channels=4, text_dim=32, visual_dim=32, sync_dim=64
    )  # fmt: skip
    foley = Foley(config)
    for parameter in foley.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    torch.save(dict(OFFICIAL.export(foley.state_dict(), 32)), folder / "hunyuanvideo_foley_xl.pth")
    dac = DACVAE(DACConfig(4, (6, 8, 20), 4, 16, (20, 8, 6)))  # 50 latents a second, as released
    torch.save({"state_dict": dac.state_dict(), "metadata": {"kwargs": {}}}, folder / "vae_128d_48k.pth")
    sync = Synchformer(SynchformerConfig(64, 1, 1, 64, 224, 112, 16, 2))
    torch.save(
        {f"vfeat_extractor.{key}": value for key, value in sync.state_dict().items()},
        folder / "synchformer_state_dict.pth",
    )
    vision = SiglipVisionConfig(**SIDES, image_size=32, patch_size=8)
    SiglipVisionModel(vision).save_pretrained(folder / "siglip2-base-patch16-512")
    text = ClapTextConfig(**SIDES, vocab_size=20, max_position_embeddings=40, pad_token_id=1)
    ClapTextModelWithProjection(text).save_pretrained(folder / "larger_clap_general")
    core = Tokenizer(models.WordLevel({"rain": 4, "noisy": 5, "<unk>": 3, "<pad>": 1}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", unk_token="<unk>").save_pretrained(
        folder / "larger_clap_general"
    )
    return folder


def pictures(generator: FoleyAudioGenerator, seconds: float) -> dict[str, list[np.ndarray]]:
    draw = np.random.default_rng(0)
    return {
        name: [
            sampler.prepare(draw.integers(0, 255, (40, 60, 3), np.uint8)) for _ in sampler.times(0, seconds)
        ]
        for name, sampler in generator.samplers.items()
    }


def test_from_files_to_sound(folder) -> None:
    generator = FoleyAudioGenerator.load(folder, "rain", steps=2)
    assert (generator.rate, generator.seconds) == (48000, 8.0)
    seen = pictures(generator, 1.0)
    assert {name: (len(values), values[0].shape) for name, values in seen.items()} == {
        "what": (8, (32, 32, 3)),
        "when": (25, (224, 224, 3)),
    }
    sound = generator.generate(seen, 1.0, 0)
    assert sound.shape == (1, 48000) and sound.dtype == np.float32 and np.isfinite(sound).all()
    np.testing.assert_array_equal(generator.generate(seen, 1.0, 0), sound)
    assert np.abs(generator.generate(seen, 1.0, 1) - sound).max() > 0


def test_a_clip_of_one_frame(folder) -> None:
    """Shorter than a segment of timing features: its last picture stands still."""
    generator = FoleyAudioGenerator.load(folder, "rain", steps=2)
    assert generator.generate(pictures(generator, 0.04), 0.04, 0).shape == (1, 1920)


def test_what_is_missing_is_named(folder, tmp_path) -> None:
    with pytest.raises(MissingError, match="hunyuanvideo_foley.pth"):
        FoleyAudioGenerator.load(tmp_path, "rain")
    with pytest.raises(MissingError, match="hunyuanvideo_foley.pth"):
        FoleyAudioGenerator.load(folder, "rain", size="XXL")
