"""Picture and text encoders on tiny random models that transformers itself writes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hy_audio.encoders.frames import CLIP_MEAN, CLIP_STD, SYNCHFORMER, Preparation
from hy_audio.encoders.text import ClapEncoder, T5Encoder
from hy_audio.encoders.vision import VisionEncoder
from hy_core.errors import HyError, MissingError
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    ClapConfig,
    ClapModel,
    CLIPConfig,
    CLIPModel,
    CLIPVisionModel,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
    SiglipVisionModel,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
)

SIDES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
WORDS = {"vocab_size": 40, "max_position_embeddings": 90}
PICTURES = {**SIDES, "image_size": 32, "patch_size": 8}


def tokenizer(folder, ends: bool) -> None:
    """A word-level tokenizer beside a model: pad 1, start 0, end 2."""
    words = "<s> <pad> </s> <unk> a dog barks rain on tin roof loud noisy".split()
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    start = "<s> " if ends else ""
    core.post_processor = processors.TemplateProcessing(
        single=f"{start}$A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)


def frames(count: int = 5, height: int = 40, width: int = 60) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("whole", [True, False])
def test_clip(tmp_path, whole: bool) -> None:
    """A whole CLIP or its picture half: the pooled vector before the projection, frame by frame."""
    config = CLIPConfig(text_config={**SIDES, **WORDS}, vision_config=PICTURES, projection_dim=16)
    model = CLIPModel(config) if whole else CLIPVisionModel(config.vision_config)
    model.eval().save_pretrained(tmp_path)
    with VisionEncoder.load(tmp_path) as vision:
        found = vision.encode(frames(), batch=2)
        assert found.shape == (5, 32) and vision.preparation.fit == "crop"
        assert torch.allclose(found[3:4], vision.encode(frames()[3:4]), atol=1e-5)
        pixels = vision.preparation(frames())
    with torch.no_grad():
        tower = model.vision_model if whole else model
        assert torch.allclose(found, tower(pixel_values=pixels).pooler_output, atol=1e-5)
    with pytest.raises(HyError, match="was freed"):
        vision.encode(frames())


@pytest.mark.parametrize("whole", [True, False])
def test_siglip(tmp_path, whole: bool) -> None:
    """What `get_image_features` gives, as Foley reads it."""
    config = SiglipConfig(text_config={**SIDES, **WORDS}, vision_config=PICTURES)
    model = SiglipModel(config) if whole else SiglipVisionModel(config.vision_config)
    model.eval().save_pretrained(tmp_path)
    vision = VisionEncoder.load(tmp_path)
    found, pixels = vision.encode(frames()), vision.preparation(frames())
    assert vision.preparation.fit == "square" and pixels.shape == (5, 3, 32, 32)
    with torch.no_grad():
        if whole:
            expected = model.get_image_features(pixel_values=pixels).pooler_output
        else:
            expected = model(pixel_values=pixels).pooler_output
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("whole", [True, False])
def test_t5(tmp_path, whole: bool) -> None:
    """Rows without padding: a prompt's states do not depend on the others; an empty one has none."""
    config = T5Config(vocab_size=40, d_model=32, d_kv=16, d_ff=48, num_layers=2, num_heads=2)
    model = T5ForConditionalGeneration(config) if whole else T5EncoderModel(config)
    model.eval().save_pretrained(tmp_path)
    tokenizer(tmp_path, ends=False)
    with T5Encoder.load(tmp_path) as text:
        states = text.encode(["a dog barks", "", "rain on a tin roof", "loud dog barks"])
        assert [tuple(row.shape) for row in states] == [(4, 32), (0, 32), (6, 32), (4, 32)]
        assert torch.allclose(text.encode(["rain on a tin roof"])[0], states[2], atol=1e-5)
        text.budget = 3
        assert text.encode(["rain on a tin roof"])[0].shape == (3, 32)
    with torch.no_grad():
        encoder = model.encoder if whole else model
        expected = encoder(input_ids=torch.tensor([[4, 5, 6, 2]])).last_hidden_state[0]
    assert torch.allclose(states[0], expected, atol=1e-5)


def test_clap(tmp_path) -> None:
    """The text half of a whole CLAP, a prompt and its negative padded together, states before the projection."""
    config = ClapConfig(
        text_config={**SIDES, **WORDS, "pad_token_id": 1},
        audio_config={
            "patch_embeds_hidden_size": 16, "hidden_size": 32, "depths": [1], "num_attention_heads": [2],
            "num_hidden_layers": 1, "spec_size": 32, "num_mel_bins": 16, "window_size": 4,
        },
        projection_dim=24,
    )  # fmt: skip
    model = ClapModel(config).eval()
    model.save_pretrained(tmp_path)
    tokenizer(tmp_path, ends=True)
    text = ClapEncoder.load(tmp_path)
    states = text.encode(["noisy", "rain on a tin roof"])
    assert states.shape == (2, 7, 32)
    ids = torch.tensor([[0, 12, 2, 1, 1, 1, 1], [0, 7, 8, 4, 9, 10, 2]])
    with torch.no_grad():
        expected = model.text_model(input_ids=ids, attention_mask=(ids != 1).long()).last_hidden_state
    assert torch.allclose(states, expected, atol=1e-5)
    assert text.encode(["dog " * 200]).shape == (1, 77, 32)


def test_what_is_no_encoder_is_refused(tmp_path) -> None:
    with pytest.raises(MissingError, match="no model that transformers can read"):
        VisionEncoder.load(tmp_path)
    T5EncoderModel(
        T5Config(vocab_size=40, d_model=32, d_kv=16, d_ff=48, num_layers=1, num_heads=2)
    ).save_pretrained(tmp_path)
    with pytest.raises(MissingError, match="holds a t5 model"):
        VisionEncoder.load(tmp_path)


def test_pictures_are_fitted_and_scaled() -> None:
    white = np.full((1, 40, 60, 3), 255, np.uint8)
    assert torch.allclose(SYNCHFORMER(white), torch.ones(1, 3, 224, 224))
    clip = Preparation(8, "crop", Image.Resampling.BICUBIC, CLIP_MEAN, CLIP_STD)(white)
    assert torch.allclose(clip[0, :, 0, 0], (1 - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_STD))
    halves = np.zeros((1, 20, 60, 3), np.uint8)
    halves[:, :, 20:40] = 255  # only the middle third of a wide picture is kept, or all of it is squeezed
    assert float(Preparation(20, "crop", Image.Resampling.BILINEAR)(halves).mean()) == pytest.approx(1)
    squeezed = Preparation(20, "square", Image.Resampling.BILINEAR)(halves)
    assert float(squeezed.mean()) == pytest.approx(-1 / 3, abs=0.05)
