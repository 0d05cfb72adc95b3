"""How pocket's text encoders are made."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from hy_core.text import TextEncoder
from hy_train import recipe
from hy_train.fit import run
from hy_world.attributes import BACKGROUNDS
from hy_world.captions import WORDINGS, caption
from hy_world.scene import sample_scene
from hy_world.text import encoders as text
from hy_world.text.objective import TextObjective
from hy_world.text.wordings import ATTRIBUTES, COLOUR_WORDS, PLACES, SHAPE_WORDS, SIZE_WORDS, label, write
from transformers import CLIPTextConfig, CLIPTextModel, LlamaConfig, LlamaModel

WORDS = {"colour": COLOUR_WORDS, "shape": SHAPE_WORDS, "size": SIZE_WORDS, "background": PLACES}


@pytest.fixture(scope="module")
def tokenizer():
    return text.make_tokenizer(np.random.default_rng(0))


def test_every_mark_stands_at_the_end_of_a_word_for_its_value():
    rng = np.random.default_rng(1)
    for _ in range(500):
        wording = write(rng)
        assert wording.marks
        for end, attribute, value in wording.marks:
            assert end == len(wording.text) or not wording.text[end].isalnum()
            if attribute in WORDS:
                assert wording.text[:end].endswith(WORDS[attribute][value])


def test_what_is_marked_is_what_is_said():
    rng = np.random.default_rng(2)
    for _ in range(300):
        wording = write(rng)
        marked = sorted((a, v) for _, a, v in wording.marks)
        said = [(a, v) for thing in wording.said for a, v in thing.items()]
        assert marked == sorted(
            said + [("background", wording.background)] * (wording.background is not None)
        )


def test_every_value_is_said_in_several_ways():
    rng = np.random.default_rng(3)
    ways = {}
    for _ in range(4000):
        wording = write(rng)
        start = 0
        for end, attribute, value in sorted(wording.marks):
            ways.setdefault((attribute, value), set()).add(wording.text[start:end].split()[-1])
            start = end
    expected = {(a, v) for a, values in ATTRIBUTES.items() for v in values} | {
        ("background", b) for b in BACKGROUNDS
    }
    assert set(ways) == expected
    assert all(len(words) > 1 for words in ways.values())


@pytest.mark.parametrize("wording", WORDINGS)
def test_captions_of_the_world_are_labelled_in_the_order_of_their_words(wording):
    rng = np.random.default_rng(4)
    for _ in range(300):
        scene = sample_scene(rng, "all", objects=2)
        said = label(scene, caption(rng, scene, wording=wording))
        words = re.sub("blue sky", "sky", said.text.lower())
        places = [
            min(
                m.start()
                for word in COLOUR_WORDS[thing["colour"]]
                for m in re.finditer(rf"\b{word}\b", words)
            )
            for thing in said.said
        ]
        assert places == sorted(places)
        assert len(said.said) == 2 and said.background in (None, scene.background)


def test_the_tokenizer_gives_back_any_text_in_lower_case(tokenizer):
    for prompt in ("a red circle", "Ein Drache isst 红色 🦊!", "x = {1: 'a'}", "naïve"):
        ids = tokenizer.encode(prompt, add_special_tokens=False).ids
        assert tokenizer.decode(ids).strip() == prompt.lower()


def test_the_tokenizer_has_a_token_for_each_word_of_a_plain_caption(tokenizer):
    for word in (
        *ATTRIBUTES["colour"],
        *ATTRIBUTES["shape"],
        "moves",
        "bounces",
        "background",
        "checkerboard",
    ):
        assert len(tokenizer.encode(word, add_special_tokens=False).ids) == 1
    assert tokenizer.get_vocab_size() == text.VOCABULARY


def test_training_on_prose_asks_for_words_only(tokenizer):
    prose = text.english()
    assert len(prose) > 500
    batch = text.draw(tokenizer, np.random.default_rng(5), 64, prose)
    assert 0 < (~batch.known).sum() < 32
    assert (batch.tags[~batch.known] == -1).all()
    rows = torch.arange(64)
    assert (batch.ids[rows, batch.last] == 1).all() and (batch.ids[:, 0] == 0).all()
    assert ((batch.next != -100).sum(1) == batch.last).all()


def test_rescaling_changes_the_scale_and_nothing_else(tokenizer):
    torch.manual_seed(0)
    llm, clip = (
        LlamaModel(LlamaConfig(**text.LLM, rms_norm_eps=1e-12)).eval(),
        CLIPTextModel(CLIPTextConfig(**text.CLIP)).eval(),
    )
    batch = text.draw(tokenizer, np.random.default_rng(6), 32)

    def run():
        with torch.no_grad():
            out = llm(input_ids=batch.ids, use_cache=False, output_hidden_states=True)
            return (
                out.hidden_states[-1 - text.SKIP],
                out.last_hidden_state,
                clip(input_ids=batch.ids).pooler_output,
            )

    before = run()
    text.rescale(llm, clip, batch)
    after = run()
    scale = (after[0] / before[0]).median()
    torch.testing.assert_close(after[0], before[0] * scale, rtol=1e-2, atol=1e-2)
    assert 0.9 < after[0].std() < 1.1 and 0.99 < after[2].std() < 1.01
    torch.testing.assert_close(after[1], before[1], rtol=2e-2, atol=2e-2)


def test_a_short_training_writes_encoders_that_load_and_learn(tmp_path):
    settings = recipe.load("pocket-text", ["steps=25", "batch=32", "seed=3", "optim.warmup=5"])
    measured = run(settings, TextObjective(settings, tmp_path), tmp_path, quiet=True)
    assert measured["llm_train"] > 30
    report = text.probe(tmp_path / "export", rows=100)
    assert 0.8 < report.states_std < 1.25 and 0.8 < report.pooled_std < 1.25
    # The most frequent answer is right in about one of eight.
    assert report.llm["train"]["colour0"] > 30
    with TextEncoder.load(tmp_path / "export") as encoder:
        encoded = encoder.encode(["a red circle moves right"])
    assert encoded.text[0].shape == (6, 128) and encoded.text[0].dtype == torch.float16
