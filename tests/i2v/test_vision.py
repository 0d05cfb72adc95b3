"""The multimodal model reads picture and prompt: a tiny LLaVA of the real classes, against diffusers' reading."""

from __future__ import annotations

import json
import secrets
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hy_core import generate
from hy_core.errors import MissingError
from hy_core.testing.batch import small_batch
from hy_core.text import OFFICIAL_I2V
from hy_core.text.llava import LlavaFolders
from hy_i2v import image_prompt
from hy_i2v.image_prompt import ImagePromptEncoder, find
from hy_i2v.plugin import I2V
from PIL import Image

WIDTH, SIDE, PATCH = 32, 28, 7  # a picture of 16 features
SPECIAL = (
    "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<image>", "<pad>", "\n\n",
    "system", "user", "assistant",
)  # fmt: skip
PROMPTS = ["it bounces", "", "a ball, which bounces twice and then lies still"]


def tokenizer(special=SPECIAL):
    """Over single bytes, with Llama 3's marks as whole tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = {
        token: index for index, token in enumerate([*special, *sorted(pre_tokenizers.ByteLevel.alphabet())])
    }
    inner = Tokenizer(models.BPE(vocab=words, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(list(special))
    inner.post_processor = processors.TemplateProcessing(
        single=f"{special[0]} $A", special_tokens=[(special[0], 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=special[0], pad_token="<pad>")


def llava(words):
    """A random LLaVA, three layers of which the last two aren't read."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=SIDE,
            patch_size=PATCH, projection_dim=16,
        ),
        text_config=LlamaConfig(
            vocab_size=len(words), hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=4,
            num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=4096,
        ),
        image_token_id=words.convert_tokens_to_ids("<image>"), vision_feature_layer=-2, pad_token_id=5,
    )  # fmt: skip
    model = LlavaForConditionalGeneration(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.copy_(torch.randn_like(parameter) * parameter[0].numel() ** -0.5)
    return model


def processor():
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    return CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})


@pytest.fixture(params=["official", "diffusers"])
def home(request, tmp_path):
    """A model's folder with a multimodal model, in both layouts."""
    torch.manual_seed(secrets.randbelow(2**31))
    words = tokenizer()
    parts = image_prompt.PLACES[0] if request.param == "official" else image_prompt.PLACES[1]
    for part, name in zip((llava(words), words, processor()), parts, strict=True):
        part.save_pretrained(tmp_path / name)
    return tmp_path


@pytest.fixture
def picture():
    return Image.fromarray(np.random.default_rng(3).integers(0, 256, (50, 80, 3), np.uint8))


def whole(home):
    """The model with all of its layers, as the reference runs it."""
    from transformers import LlavaForConditionalGeneration

    place = find(home)
    return LlavaForConditionalGeneration.from_pretrained(place.model).eval(), place


def test_the_layout_against_diffusers(home, picture):
    """diffusers' own method, with the numbers of this tokenizer in place of the official ones."""
    image2video = pytest.importorskip("diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video_image2video")
    model, place = whole(home)
    encoder = ImagePromptEncoder.load(place, "cpu", torch.float32)
    start = encoder.ids("a").index(encoder.image_token)
    template = {
        "template": OFFICIAL_I2V.video.fill("{}"), "crop_start": encoder.crop, "image_emb_len": 16,
        "image_emb_start": start, "image_emb_end": start + 16,
    }  # fmt: skip
    # transformers 5 gives every layer's states of the language model inside; diffusers reads them off the whole
    pipe = SimpleNamespace(text_encoder=model, tokenizer=encoder.tokenizer, image_processor=processor())
    for prompt in [*PROMPTS, "much " * 200]:
        for stride in (image_prompt.FIXED_FRAME_STRIDE, image_prompt.CHANNEL_STRIDE):
            with torch.no_grad():
                states, mask = image2video.HunyuanVideoImageToVideoPipeline._get_llama_prompt_embeds(
                    pipe, picture, prompt, template, device="cpu", dtype=torch.float32,
                    image_embed_interleave=stride,
                )  # fmt: skip
            expected = states[0][mask[0].bool()]
            found = encoder.encode(prompt, picture, stride)
            assert found.shape == expected.shape, prompt
            assert (found - expected).abs().max() < 1e-4 * expected.abs().max(), prompt


def test_trap_6_official_counts():
    """Core facts, trap 6: with 576 features and Llama 3's numbers 144 or 288 states of the picture, and 252 of text."""
    after = ["eot", "start", "assistant", "end", "nn"]
    encoder = SimpleNamespace(suffix=after, crop=103)
    for words in (1, 20, 251):
        ids = [*range(103), *range(1000, 1000 + words), *after]
        kept = ImagePromptEncoder.text_positions(encoder, ids, 576)
        p = len(ids) - 1  # the last "\n\n"
        assert kept == [*range(678, p - 1 + 576 - 4), *range(p - 1 + 576, len(ids) + 575)]
    cut = [*range(103), *range(1000, 1256)]
    kept = ImagePromptEncoder.text_positions(encoder, cut, 576)
    assert len(cut) == 359 and len(kept) == 252 and kept == list(range(678, 359 - 1 + 576 - 4))
    assert (
        len(range(5, 581, image_prompt.FIXED_FRAME_STRIDE)) == 144
        and len(range(5, 581, image_prompt.CHANNEL_STRIDE)) == 288
    )


def test_the_states_are_those_before_the_last_two_layers(home, picture):
    model, place = whole(home)
    encoder = ImagePromptEncoder.load(place, "cpu", torch.float32)
    assert len(encoder.model.language_model.layers) == len(model.model.language_model.layers) - 2
    ids = encoder.ids(PROMPTS[0])
    at = ids.index(encoder.image_token)
    expanded = torch.tensor([[*ids[:at], *[encoder.image_token] * 16, *ids[at + 1 :]]])
    pixels = processor()(picture, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        states = model(input_ids=expanded, pixel_values=pixels, output_hidden_states=True).hidden_states[-3][
            0
        ]
    found = encoder.encode(PROMPTS[0], picture, 4)
    assert torch.allclose(found[:4], states[at : at + 16 : 4], atol=1e-5)
    assert torch.allclose(found[-1], states[-1], atol=1e-5)


def test_trap_11_a_run_reads_the_picture_with_both_prompts_alike(tiny, home, ball, monkeypatch):
    """Core facts, trap 11: diffusers reads every second state with the negative prompt where it reads every fourth."""
    asked = []
    original = image_prompt.encode

    def encode(place, pairs, stride, device, dtype):
        asked.extend((prompt, np.asarray(picture).max(), picture.size, stride) for prompt, picture in pairs)
        return original(place, pairs, stride, device, dtype)

    monkeypatch.setattr(image_prompt, "encode", encode)
    request = replace(tiny.request, cfg=2.0, negative="noise")
    tiny.model.folder = home
    seeing = generate(request, [I2V(image=ball)], model=tiny.model).frames.astype(int)
    assert asked == [(request.prompt, 220, (90, 70), 4), ("noise", 0, (90, 70), 4)]
    blind = generate(request, [I2V(image=ball, semantic=False)], model=tiny.model).frames.astype(int)
    assert len(asked) == 2 and np.abs(seeing - blind).max() > 3


def test_the_text_that_the_network_gets(tiny, home, ball):
    cond = tiny.condition()
    cond.encoding = replace(cond.encoding, folder=home)
    plugin = I2V(image=ball)
    plugin.encode(tiny.request, cond)
    place = find(home)
    (expected,) = image_prompt.encode(
        place, [(tiny.request.prompt, Image.open(ball))], 4, "cpu", torch.float32
    )
    assert torch.equal(cond.tokens()[0], expected)


def test_a_model_without_one_simply_does_not_see(tiny, ball, tmp_path):
    assert find(None) is None and find(tmp_path) is None
    (tmp_path / "text_encoder").mkdir()
    (tmp_path / "text_encoder" / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (tmp_path / "text_encoder" / "preprocessor_config.json").write_text("{}")
    assert find(tmp_path) is None
    cond = tiny.condition()
    before = cond.tokens()[0]
    I2V(image=ball).encode(tiny.request, cond)
    assert torch.equal(cond.tokens()[0], before)


def training(tiny, home, **settings):
    """The text of a batch of three rows with their first frame fixed, its condition, and these frames."""
    cond = tiny.condition(rows=3)
    cond.encoding = replace(cond.encoding, folder=home)
    batch = replace(
        small_batch(tiny, rows=3),
        prompts=PROMPTS,
        generator=torch.Generator().manual_seed(0),
        settings={"i2v": {"first_frame": 1.0, "first_and_last_frame": 0.0, "first_half": 0.0, **settings}},
    )
    before = list(cond.text)
    I2V(image="unused.png").training_condition(batch, cond)
    return before, cond, [clip.video()[0] for clip in batch.clips]


@pytest.mark.parametrize("dropout", [0.0, 1.0])
def test_in_training_it_sees_the_first_frame_or_black(tiny, home, dropout):
    _, cond, first = training(tiny, home, image_dropout=dropout)
    shown = [Image.fromarray(frame * (dropout == 0)) for frame in first]
    asked = list(zip(PROMPTS, shown, strict=True))
    expected = image_prompt.encode(find(home), asked, image_prompt.FIXED_FRAME_STRIDE, "cpu", torch.float32)
    assert all(torch.equal(row, other) for row, other in zip(cond.tokens(), expected, strict=True))
    assert list(cond.fixed_frames) == [0]  # the frame itself is given all the same


def test_in_training_rows_are_blind_by_the_share(tiny, home):
    seen, blind, some = (training(tiny, home, image_dropout=share)[1].tokens() for share in (0.0, 1.0, 0.5))
    which = [torch.equal(row, other) for row, other in zip(some, blind, strict=True)]
    again = training(tiny, home, image_dropout=0.5)[1].tokens()
    assert all(torch.equal(row, other) for row, other in zip(some, again, strict=True))
    for row, picture, dropped in zip(some, seen, which, strict=True):
        assert dropped or torch.equal(row, picture)
    draws = torch.Generator().manual_seed(0)
    expected = [torch.rand(1, generator=draws).item() for _ in range(2)]  # which frames, and how noisy
    noise = torch.randn(3, 16, 1, 4, 4, generator=draws)
    expected = [torch.rand(1, generator=draws).item() < 0.5 for _ in noise]
    assert which == expected


def test_in_training_text_stays_without_a_given_frame_or_a_encoder(tiny, home):
    for folder, settings in ((home, {"first_frame": 0.0}), (None, {})):
        before, cond, _ = training(tiny, folder, **settings)
        assert all(torch.equal(row, other) for row, other in zip(cond.tokens(), before, strict=True))


def test_a_damaged_one_is_one_line(home):
    from safetensors.torch import load_file, save_file

    place = find(home)
    state = load_file(place.model / "model.safetensors")
    lost = next(key for key in state if "multi_modal_projector" in key)
    del state[lost]
    save_file(state, place.model / "model.safetensors", {"format": "pt"})
    with pytest.raises(MissingError, match="lacks 1 tensors"):
        ImagePromptEncoder.load(place, "cpu", None)


def test_a_tokenizer_without_the_picture_is_one_line(home, picture):
    from hy_core import HyError

    place = find(home)
    plain = tokenizer([word if word != "<image>" else "<other>" for word in SPECIAL])
    encoder = ImagePromptEncoder(
        SimpleNamespace(model=None, config=SimpleNamespace(image_token_id=4)), plain, None
    )
    with pytest.raises(HyError, match="0 picture tokens"):
        encoder.encode("x", picture, 4)
    assert isinstance(place, LlavaFolders)
