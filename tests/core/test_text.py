"""The text encoders: tiny models of the official kinds, written by transformers and read back by us."""

from __future__ import annotations

import gc
import json
import re
import shutil
import warnings
import weakref

import pytest
import torch
from hy_core.errors import HyError, MissingError
from hy_core.text import OFFICIAL, OFFICIAL_I2V, Template, Templates, TextEncoder
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

SPECIAL = ("<s>", "</s>", "<pad>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<image>")
VOCABULARY = 420
LLAMA = dict(
    vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=5, num_attention_heads=4,
    num_key_value_heads=2, bos_token_id=0, eos_token_id=1, pad_token_id=2, max_position_embeddings=1024,
)  # fmt: skip
CLIP = dict(
    vocab_size=VOCABULARY, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
    bos_token_id=0, eos_token_id=1, pad_token_id=2, projection_dim=8,
)  # fmt: skip
PROMPTS = ["a red circle", "a blue star bounces up and down at sunset", "", "a big square"]


def make_tokenizer(order):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [*PROMPTS, OFFICIAL.video.before, OFFICIAL.image.before, "one two three words"]
    tokenizer.train_from_iterator(texts * 5, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=order, special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


def spread(model, seed=0):
    """Give a model weights that matter: transformers' own are so small that layers hardly change anything."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            noise = torch.randn(tensor.shape, generator=generator)
            tensor.copy_(1 + 0.3 * noise if "norm" in name and "weight" in name else 0.3 * noise)
    return model.eval()


def make_llava():
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
    )
    config = LlavaConfig(text_config=LlamaConfig(**LLAMA), vision_config=vision, image_token_id=6)
    return LlavaForConditionalGeneration(config)


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """An official folder (tokenizers beside their models), and the full-depth models in it."""
    folder = tmp_path_factory.mktemp("official")
    llm, clip = spread(LlamaModel(LlamaConfig(**LLAMA)), 1), spread(CLIPTextModel(CLIPTextConfig(**CLIP)), 2)
    llm.save_pretrained(folder / "text_encoder")
    clip.save_pretrained(folder / "text_encoder_2")
    make_tokenizer("<s> $A").save_pretrained(folder / "text_encoder")
    make_tokenizer("<s> $A </s>").save_pretrained(folder / "text_encoder_2")
    return folder, llm, clip


@pytest.fixture(scope="module")
def encoder(official):
    return TextEncoder.load(official[0])


def tokens_before_the_prompt(tokenizer, template):
    """Count them by where in the text each token ends; the begin token is at (0, 0)."""
    ends = [end for _, end in tokenizer(template.fill("x"), return_offsets_mapping=True)["offset_mapping"]]
    return sum(end <= len(template.before) for end in ends)


def padded_run(llm, tokenizer, prompts, template, length):
    """The official way: all padded on the right to one length, every layer run, hidden_states[-3], cut."""
    batch = tokenizer(
        [template.fill(prompt) for prompt in prompts],
        padding="max_length",
        max_length=length,
        truncation=True,
        padding_side="right",
        return_tensors="pt",
    )
    with torch.no_grad():
        out = llm(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], output_hidden_states=True
        )
    crop = tokens_before_the_prompt(tokenizer, template)
    masks = batch["attention_mask"][:, crop:].bool()
    return [row[crop:][mask] for row, mask in zip(out.hidden_states[-3], masks, strict=True)]


# The language model


@pytest.mark.parametrize("image_mode", [False, True])
def test_states_are_those_of_the_full_padded_model_two_layers_before_the_end(official, encoder, image_mode):
    _, llm, _ = official
    template = OFFICIAL.image if image_mode else OFFICIAL.video
    ours = encoder.encode(PROMPTS, image_mode).text
    theirs = padded_run(llm, encoder.llm.tokenizer, PROMPTS, template, encoder.llm.budget)
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-5, atol=2e-5)


def test_states_differ_from_those_of_the_neighbouring_layers_and_of_the_final_norm(official, encoder):
    _, llm, _ = official
    row, _ = encoder.llm.tokens(PROMPTS[1])
    with torch.no_grad():
        states = llm(input_ids=torch.tensor([row]), output_hidden_states=True).hidden_states
    mine = encoder.encode([PROMPTS[1]]).text[0]
    for wrong in (states[-4], states[-2], llm.norm(states[-3])):
        assert (mine - wrong[0, encoder.llm.crops[False] :]).abs().max() > 0.1


def test_only_the_layers_that_are_needed_are_loaded(encoder):
    assert len(encoder.llm.model.layers) == 3
    assert not any("norm.weight" == name for name, _ in encoder.llm.model.named_parameters())


def test_a_row_does_not_depend_on_its_batch(encoder):
    together = encoder.encode(PROMPTS)
    for i, prompt in enumerate(PROMPTS):
        alone = encoder.encode([prompt])
        torch.testing.assert_close(together.text[i], alone.text[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(together.pooled[i], alone.pooled[0], rtol=1e-5, atol=1e-5)


def test_rows_come_back_in_order_and_equal_prompts_are_run_once(encoder):
    once = encoder.encode(PROMPTS[:2])
    calls = []
    hook = encoder.llm.model.register_forward_pre_hook(lambda *_: calls.append(1))
    twice = encoder.encode([PROMPTS[1], PROMPTS[0], PROMPTS[1]])
    hook.remove()
    assert len(calls) == 2
    for row, source in zip(twice.text, (1, 0, 1), strict=True):
        torch.testing.assert_close(row, once.text[source], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(twice.pooled, once.pooled[[1, 0, 1]], rtol=1e-5, atol=1e-5)


def test_states_can_be_used_in_training(encoder):
    weight = torch.ones(32, requires_grad=True)
    (encoder.encode(["a red circle"]).text[0] * weight).sum().backward()
    assert weight.grad.abs().sum() > 0


# Templates, crops, lengths


def test_the_crop_is_what_the_tokenizer_makes_of_the_template(encoder):
    tokenizer = encoder.llm.tokenizer
    for image_mode, template in ((False, OFFICIAL.video), (True, OFFICIAL.image)):
        assert encoder.llm.crops[image_mode] == tokens_before_the_prompt(tokenizer, template)
        row, _ = encoder.llm.tokens("a red circle", image_mode)
        assert tokenizer.decode(row[encoder.llm.crops[image_mode] :]) == "a red circle<|eot_id|>"


def test_the_crop_leaves_out_an_end_token_that_the_tokenizer_adds():
    assert OFFICIAL.video.crop(make_tokenizer("<s> $A </s>")) == OFFICIAL.video.crop(make_tokenizer("<s> $A"))


@pytest.mark.parametrize(
    ("template", "crop"), [(OFFICIAL.video, 95), (OFFICIAL.image, 36), (OFFICIAL_I2V.video, 103)]
)
def test_llama_3_makes_the_official_number_of_tokens(template, crop):
    """Counted by Llama 3's own splitting rule: each piece of these templates is one token there."""
    tokenizer = llama3_stand_in(begin=True)
    assert template.crop(tokenizer) == crop == template.known_crop


def test_a_llama_3_tokenizer_that_forgets_its_begin_token_is_an_error():
    with pytest.raises(HyError, match="94 tokens of the template, the official one 95"):
        OFFICIAL.video.crop(llama3_stand_in(begin=False))


def llama3_stand_in(begin):
    """A tokenizer with Llama 3's splitting rule, its special tokens at their ids, and one token per piece.

    For the templates' plain words that is what the real one does (checked against it once, by hand).
    """
    from tokenizers import Regex

    rule = Regex(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    splitter = pre_tokenizers.Split(rule, behavior="isolated")
    specials = {"<|begin_of_text|>": 128000, "<|start_header_id|>": 128006, "<|end_header_id|>": 128007}
    specials |= {"<|eot_id|>": 128009, "<image>": 128257}
    pieces = {"<unk>"}
    for templates in (OFFICIAL, OFFICIAL_I2V):
        for template in (templates.video, templates.image):
            text = template.fill("a")
            for special in specials:
                text = text.replace(special, "\0")
            for part in text.split("\0"):
                pieces |= {"1"} | {piece for piece, _ in splitter.pre_tokenize_str(part)}
    vocabulary = {piece: i for i, piece in enumerate(sorted(pieces))} | specials
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = splitter
    tokenizer.add_special_tokens(list(specials))
    if begin:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 128000)]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def test_trap_6_videos_get_256_tokens_and_images_315():
    """Core facts, trap 6: in image mode the limit still comes from the longer video template."""
    tokenizer = llama3_stand_in(begin=True)
    assert OFFICIAL.budget(tokenizer) == 351
    assert OFFICIAL.budget(tokenizer) - OFFICIAL.video.crop(tokenizer) == 256
    assert OFFICIAL.budget(tokenizer) - OFFICIAL.image.crop(tokenizer) == 315
    assert OFFICIAL_I2V.budget(tokenizer) == 359


def test_a_long_prompt_fills_the_limit_and_equals_the_official_truncation(official, encoder):
    _, llm, _ = official
    prompt = "one two three " * 200
    for image_mode, template in ((False, OFFICIAL.video), (True, OFFICIAL.image)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mine = encoder.encode([prompt], image_mode).text[0]
        assert len(mine) == encoder.llm.budget - encoder.llm.crops[image_mode]
        reference = padded_run(llm, encoder.llm.tokenizer, [prompt], template, encoder.llm.budget)[0]
        torch.testing.assert_close(mine, reference, rtol=1e-5, atol=2e-5)


def test_a_long_prompt_warns_once_with_both_limits_and_what_was_cut(official):
    encoder = TextEncoder.load(official[0])
    row, _ = encoder.llm.tokens("word " * 300)
    words = encoder.llm.tokenizer.decode(row[encoder.llm.crops[False] :]).count("word")
    prompt = "word " * words + "zebra"
    with pytest.warns(UserWarning) as caught:
        encoder.encode([prompt, "short"])
        encoder.encode([prompt])
    assert len(caught) == 1
    message = str(caught[0].message)
    assert re.search(r"the language model reads 256 tokens \(cut from '.*zebra'\)", message)
    assert "CLIP reads 77 tokens (cut from" in message
    assert "\n" not in message and len(message) < 300


def test_a_prompt_too_long_for_clip_alone_says_that_the_language_model_read_it_all(official):
    encoder = TextEncoder.load(official[0])
    with pytest.warns(
        UserWarning, match=r"reads 256 tokens \(nothing cut\); CLIP reads 77 tokens \(cut from"
    ):
        encoder.encode(["one two three " * 15])


def test_a_prompt_within_the_limits_does_not_warn(encoder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.encode(PROMPTS)


@pytest.mark.parametrize(
    "prompt", ["{} {0} {prompt}", "a 100% {", "äöü 红色 🦊", " \n spaced \n", "<|eot_id|>"]
)
def test_prompts_are_taken_as_they_are(encoder, prompt):
    row = encoder.encode([prompt]).text[0]
    expected = len(encoder.llm.tokenizer(OFFICIAL.video.before + prompt + "<|eot_id|>")["input_ids"])
    assert len(row) == expected - encoder.llm.crops[False]
    assert row.isfinite().all()


# CLIP


def test_the_pooled_vector_is_clips_own_at_the_end_token(official, encoder):
    _, _, clip = official
    batch = encoder.clip.tokenizer(PROMPTS, padding="max_length", max_length=77, return_tensors="pt")
    with torch.no_grad():
        theirs = clip(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).pooler_output
    torch.testing.assert_close(encoder.encode(PROMPTS).pooled, theirs, rtol=1e-5, atol=1e-5)


def test_a_cut_clip_prompt_keeps_its_end_token(encoder):
    row, left_over = encoder.clip.tokens("one two three " * 60)
    assert len(row) == 77 and row[0] == 0 and row[-1] == 1
    whole = encoder.clip.tokenizer("one two three " * 60, add_special_tokens=False)["input_ids"]
    both = encoder.clip.tokenizer.decode(whole[:75]) + left_over
    assert both.replace(" ", "") == "onetwothree" * 60


def test_a_whole_clip_gives_its_text_half(official, tmp_path):
    folder = shutil.copytree(official[0], tmp_path / "model")
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=28,
        patch_size=14,
    )
    whole = CLIPModel(
        CLIPConfig(text_config=CLIPTextConfig(**CLIP).to_dict(), vision_config=vision.to_dict())
    )
    whole.text_model.load_state_dict(official[2].state_dict())
    (folder / "text_encoder_2/model.safetensors").unlink()
    whole.save_pretrained(folder / "text_encoder_2")
    expected = TextEncoder.load(official[0]).encode(PROMPTS).pooled
    torch.testing.assert_close(TextEncoder.load(folder).encode(PROMPTS).pooled, expected)


# Files


@pytest.mark.parametrize("kind", ["causal", "llava", "llava, older names", "sharded", "pickle"])
def test_a_language_model_is_found_inside_whatever_holds_it(official, tmp_path, kind):
    folder, llm, _ = official
    copy = shutil.copytree(folder, tmp_path / "model")
    place = copy / "text_encoder"
    (place / "model.safetensors").unlink()
    if kind == "causal":
        causal = LlamaForCausalLM(LlamaConfig(**LLAMA))
        causal.model.load_state_dict(llm.state_dict())
        causal.save_pretrained(place)
    elif kind.startswith("llava"):
        llava = make_llava()
        llava.model.language_model.load_state_dict(llm.state_dict())
        llava.save_pretrained(place)
        state = load_file(place / "model.safetensors")
        names = ("language_model.model.", "model.language_model.") if kind == "llava" else ("", "")
        renamed = {key.replace(*names): tensor for key, tensor in state.items()}
        save_file(renamed, place / "model.safetensors", {"format": "pt"})
    elif kind == "sharded":
        llm.save_pretrained(place, max_shard_size="20KB")
        assert len(list(place.glob("*.safetensors"))) > 2
    else:
        torch.save(llm.state_dict(), place / "pytorch_model.bin")
    expected, ours = TextEncoder.load(folder).encode(PROMPTS), TextEncoder.load(copy).encode(PROMPTS)
    for mine, reference in zip(ours.text, expected.text, strict=True):
        torch.testing.assert_close(mine, reference)


@pytest.mark.parametrize("layout", ["diffusers", "pocket"])
def test_other_folder_layouts_read_the_same(official, tmp_path, layout):
    folder = official[0]
    if layout == "diffusers":
        for number in ("", "_2"):
            models_only = shutil.copytree(
                folder / f"text_encoder{number}", tmp_path / f"text_encoder{number}"
            )
            (tmp_path / f"tokenizer{number}").mkdir()
            for file in models_only.glob("tokenizer*"):
                file.rename(tmp_path / f"tokenizer{number}" / file.name)
    else:
        shutil.copytree(folder / "text_encoder", tmp_path / "llm")
        shutil.copytree(folder / "text_encoder_2", tmp_path / "clip")
    expected, ours = TextEncoder.load(folder).encode(PROMPTS), TextEncoder.load(tmp_path).encode(PROMPTS)
    assert all(map(torch.equal, ours.text, expected.text)) and torch.equal(ours.pooled, expected.pooled)


def test_templates_beside_the_model_win_over_the_official_ones(official, tmp_path):
    folder = shutil.copytree(official[0], tmp_path / "model")
    template = Template(before="", after="</s>")
    Templates(video=template, image=template, tokens=7).save(folder / "text_encoder/templates.json")
    encoder = TextEncoder.load(folder)
    assert encoder.llm.crops == {True: 1, False: 1} and encoder.llm.budget == 8
    (row,) = encoder.encode(["a red circle"]).text
    assert len(row) == len(encoder.llm.tokenizer("a red circle</s>")["input_ids"]) - 1
    (folder / "text_encoder/templates.json").write_text('{"video": 1}')
    with pytest.raises(HyError, match="doesn't hold prompt templates"):
        TextEncoder.load(folder)


def test_the_layers_left_out_are_never_read(official, tmp_path):
    """Their tensors may even be broken: nobody looks at them."""
    folder = shutil.copytree(official[0], tmp_path / "model")
    state = load_file(folder / "text_encoder/model.safetensors")
    for name in list(state):
        if "layers.3." in name or "layers.4." in name:
            del state[name]
    save_file(state, folder / "text_encoder/model.safetensors", {"format": "pt"})
    expected = TextEncoder.load(official[0]).encode(PROMPTS).text
    assert all(map(torch.equal, TextEncoder.load(folder).encode(PROMPTS).text, expected))


def test_missing_tensors_are_an_error_not_random_numbers(official, tmp_path):
    folder = shutil.copytree(official[0], tmp_path / "model")
    state = load_file(folder / "text_encoder/model.safetensors")
    del state["layers.1.mlp.up_proj.weight"]
    save_file(state, folder / "text_encoder/model.safetensors", {"format": "pt"})
    with pytest.raises(MissingError, match="lacks 1 tensors"):
        TextEncoder.load(folder)


def test_a_tensor_of_another_shape_is_an_error(official, tmp_path):
    folder = shutil.copytree(official[0], tmp_path / "model")
    config = json.loads((folder / "text_encoder_2/config.json").read_text())
    (folder / "text_encoder_2/config.json").write_text(json.dumps(config | {"intermediate_size": 24}))
    with pytest.raises(MissingError, match="text_encoder_2 can't be read"):
        TextEncoder.load(folder)


@pytest.mark.parametrize(
    "gone", ["text_encoder_2", "text_encoder/config.json", "text_encoder_2/tokenizer.json"]
)
def test_missing_files_are_one_line(official, tmp_path, gone):
    folder = shutil.copytree(official[0], tmp_path / "model")
    path = folder / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(MissingError) as caught:
        TextEncoder.load(folder)
    assert "\n" not in str(caught.value)


def test_code_in_a_model_folder_is_not_run(official, tmp_path):
    folder = shutil.copytree(official[0], tmp_path / "model")
    config = json.loads((folder / "text_encoder/config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"}}
    (folder / "text_encoder/config.json").write_text(json.dumps(config))
    (folder / "text_encoder/evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(MissingError):
        TextEncoder.load(folder)
    assert not (tmp_path / "ran").exists()


# Life


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, None])
def test_dtype_is_as_asked_or_the_files_own(official, dtype):
    encoded = TextEncoder.load(official[0], "cpu", dtype).encode(["a red circle"])
    assert {encoded.text[0].dtype, encoded.pooled.dtype} == {dtype or torch.float32}


def test_freeing_lets_every_tensor_go(official):
    with TextEncoder.load(official[0]) as encoder:
        alive = [weakref.ref(p) for m in (encoder.llm.model, encoder.clip.model) for p in m.parameters()]
        encoded = encoder.encode(PROMPTS)
        assert alive and all(ref() is not None for ref in alive)
    gc.collect()
    assert all(ref() is None for ref in alive)
    # What was encoded owns its memory and nothing more.
    for row in encoded.text:
        assert row.untyped_storage().nbytes() == row.nbytes
    with pytest.raises(HyError, match="freed"):
        encoder.encode(["again"])


def test_loading_leaves_no_trace_in_transformers_settings(official, capfd):
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    TextEncoder.load(official[0])
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    assert capfd.readouterr().err == ""
