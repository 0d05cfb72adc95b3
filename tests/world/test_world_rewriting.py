"""Free wordings of the world's scenes, and the reader that is trained on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hy_core.cli import cli
from hy_core.errors import HyError
from hy_core.rewrite import rewrite
from hy_core.rewrite.opening import open_rewriter
from hy_core.rewrite.small import SmallRewriter, render
from hy_core.rewrite.words import Lexicon, fold, tokens
from hy_train import recipe as recipes
from hy_world.captions import caption
from hy_world.rewriting import lexicon
from hy_world.rewriting.captions import schema
from hy_world.rewriting.objective import RewriterObjective
from hy_world.rewriting.paraphrase import sample
from hy_world.scene import sample_scene
from hy_world.text_to_video import draw, evaluate


@pytest.mark.parametrize("language", lexicon.LANGUAGES)
def test_every_token_of_what_is_said_is_labelled_and_nothing_else(language: str) -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        made = sample(rng, language, 0.3)
        words, labels = made.labelled()
        assert len(words) == len(labels)
        found = {
            (thing, *label.value.split("."))
            for label in labels
            if label.value
            for thing in label.owners or (-1,)
        }
        said = {(at, name, value) for at, thing in enumerate(made.things) for name, value in thing.items()}
        said |= {(-1, "background", made.background)} if made.background else set()
        assert found <= said
        missing = {name for _, name, _ in said - found}
        assert (
            missing <= {"motion"} or len(words) >= 150
        )  # a motion without its verb's slot in a sentence of two


@pytest.mark.parametrize("language", lexicon.LANGUAGES)
def test_held_out_words_and_sentences_are_in_no_training_prompt_and_not_in_the_lexicon(language: str) -> None:
    held = {
        phrase
        for values in lexicon.table(language)["heldout"].values()
        for phrases in values.values()
        for one in phrases
        for phrase in one.split("|")
    }
    assert len(held) > 30
    assert not held & set(lexicon.tagged(language))
    grammar = lexicon.table(language)["grammar"]
    for name in ("np", "clause", "where", "pair"):
        assert not set(grammar[f"heldout_{name}"]) & set(grammar[name])
    rng = np.random.default_rng(2)
    written = {piece.text for _ in range(300) for piece in sample(rng, language).pieces}
    assert not written & held


def test_the_same_seed_draws_the_same_free_prompts() -> None:
    one, other = (draw("free", 5, 3, 17, 64, 64, 2, "es") for _ in range(2))
    assert [c.text for c in one[1]] == [c.text for c in other[1]]
    assert [c.text for c in one[1]] != [c.text for c in draw("free", 5, 4, 17, 64, 64, 2, "es")[1]]


def test_clips_of_rewritten_prompts_are_judged_by_what_the_prompts_say() -> None:
    asked: list[str] = []

    def make(prompts: list[str]) -> list[np.ndarray]:
        asked.extend(prompts)
        return [np.zeros((17, 64, 64, 3), np.uint8) for _ in prompts]

    report = evaluate(make, "free", 3, 0, language="zh", rewriter=open_rewriter("auto"))
    assert all(prompt.isascii() for prompt in asked)
    assert report.lines[-1].attribute == "all" and report.lines[-1].made.right == 0


def test_prompts_in_the_worlds_own_wording_lose_nothing() -> None:
    own = open_rewriter("auto")
    assert isinstance(own, SmallRewriter)
    texts = schema()["texts"]
    rng = np.random.default_rng(5)
    right = 0
    for _ in range(100):
        scene = sample_scene(rng)
        said = caption(rng, scene)
        text = rewrite(own, said.text).text
        wanted = [
            texts[name][getattr(thing, name)]
            for thing, stated in zip(scene.things, said.stated, strict=True)
            for name in stated
        ]
        wanted += [texts["background"][scene.background]] if said.background else []
        right += all(one in text for one in wanted)
    assert right >= 98


@pytest.mark.parametrize("language", lexicon.LANGUAGES)
def test_held_out_wordings_are_read(language: str) -> None:
    own = open_rewriter("auto")
    assert isinstance(own, SmallRewriter)
    scenes, captions = draw("free", 60, 11, 17, 64, 64, 1, language)
    right = 0
    for scene, said in zip(scenes, captions, strict=True):
        reading, _ = own.read(said.text)
        stated = {name: getattr(scene.things[0], name) for name in said.stated[0]}
        is_right = len(reading.things) == 1 and stated.items() <= reading.things[0].items()
        right += is_right and (not said.background or reading.scene.get("background") == scene.background)
    assert right >= 0.8 * len(scenes)


def test_a_caption_is_rendered_with_articles_and_without_what_is_not_said() -> None:
    captions = schema()
    things = [{"colour": "orange", "motion": "left"}, {"shape": "star", "size": "large", "colour": "red"}]
    assert (
        render(things, {"background": "sky"}, captions)
        == "an orange shape moves left and a large red star in the sky"
    )


def test_the_objective_learns_and_its_export_is_a_rewriter(tmp_path: Path) -> None:
    small = ["model.width=32", "model.layers=1", "model.buckets=512", "batch=16", "options.rows=4"]
    objective = RewriterObjective(recipes.load("pocket-rewriter", small), tmp_path)
    optimiser = torch.optim.Adam(objective.model.parameters(), 1e-2)
    losses = []
    for step in range(12):
        loss, _ = objective.loss(objective.batch(step), torch.Generator())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    assert set(objective.evaluate()) == {f"{a}_{b}" for a in lexicon.LANGUAGES for b in ("train", "heldout")}
    again = objective.batch(3)
    assert torch.equal(again.rows.grams, objective.batch(3).rows.grams)
    objective.export(tmp_path / "rewriter")
    exported = open_rewriter(str(tmp_path / "rewriter"))
    assert isinstance(exported, SmallRewriter)
    exported.read("a red circle")
    assert exported.load()[0].config == objective.config


def test_a_language_needs_free_prompts_and_a_rewriter_needs_prompts() -> None:
    for line in (["--language", "zh"], ["--rewrite", "--codec"]):
        result = CliRunner().invoke(cli, ["eval", "world", *line])
        assert isinstance(result.exception, HyError)


def test_words_derived_from_known_ones_are_known() -> None:
    known = Lexicon(
        {"red": ["colour.red"], "azul": ["colour.blue"], "box": ["shape.square"], "purple": ["colour.purple"]}
    )
    words = [fold(one) for one in tokens("reddish azulito boxlike boxes purplish")]
    assert [match.phrase for match in known.match(words)] == ["red", "azul", "box", "box", "purple"]
