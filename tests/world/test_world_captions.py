"""Captions say what is true, and note exactly what they say."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hy_core.errors import UsageError
from hy_world.captions import WORDINGS, caption
from hy_world.scene import sample_scene
from hypothesis import given, settings
from hypothesis import strategies as st

# What a reader understands, written down apart from the templates that wrote it.
WORDS = {
    "colour": {name: {name} for name in ("red", "orange", "yellow", "green", "blue", "pink")}
    | {"cyan": {"cyan", "turquoise"}, "purple": {"purple", "violet"}},
    "size": {"small": {"small", "little", "tiny"}, "large": {"large", "big", "huge"}},
    "shape": {
        "circle": {"circle", "disc", "ball"},
        "square": {"square", "box"},
        "triangle": {"triangle"},
        "star": {"star"},
    },
}
MOTION = {
    "right": r"(?<!the )\bright\b(?! to)|to the right",
    "left": r"(?<!the )\bleft\b(?! to)|to the left",
    "up": r"(?<!bounc)(mov|go|slid|travel|climb|ris)\w* (up|upwards)\b|to (the )?top",
    "down": r"(mov|go|slid|travel|sink|fall)\w* (down|downwards)\b|to (the )?bottom",
    "bounce": r"bounc|hop|jump|leap",
    "spin": r"spin|rotat|turn(s|ing)|whirl|twirl",
    "grow": r"grow|bigger|becom\w+ larger|expand|inflat",
    "shrink": r"shrink|smaller|contract|deflat",
    "still": r"still|not move|rest|stay",
}
GROUND = {
    "white": r"\bwhite\b",
    "black": r"\bblack\b",
    "gray": r"\bgr[ae]y\b",
    "sky": r"(?<!evening )\bsky\b",
    "sunset": r"sunset|evening sky",
    "checkerboard": r"checker",
}


def meanings(text, table):
    return {name for name, pattern in table.items() if re.search(pattern, text)}


@given(st.integers(0, 2**32 - 1), st.sampled_from(WORDINGS), st.sampled_from([1, 17]), st.booleans())
@settings(max_examples=400, deadline=None)
def test_a_caption_states_what_it_says_it_states_and_nothing_else(seed, wording, frames, full):
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng, frames=frames)
    made = caption(rng, scene, frames, wording, full)
    text = made.text.lower()
    words = re.findall("[a-z]+", re.sub("(in|against|on) (a|the) blue sky|front of a blue sky", "", text))
    words = re.findall(
        "[a-z]+",
        re.sub(r"(getting|gets|becomes|becoming) (bigger|larger|smaller)|blue sky", "", " ".join(words)),
    )
    for name, values in WORDS.items():
        told = sorted(value for word in words for value, names in values.items() if word in names)
        true = sorted(
            getattr(thing, name)
            for thing, said in zip(scene.things, made.stated, strict=True)
            if name in said
        )
        assert told == true, (name, made.text)
    true = {thing.motion for thing, said in zip(scene.things, made.stated, strict=True) if "motion" in said}
    assert meanings(text, MOTION) == true, made.text
    assert meanings(text, GROUND) == ({scene.background} if made.background else set()), made.text
    if frames == 1:
        assert not true
    if full:
        wanted = {"colour", "shape", "size"} | ({"motion"} if frames > 1 else set())
        assert made.background and all(said == wanted for said in made.stated)


def draw(wording, count=2000):
    rng = np.random.default_rng(0)
    texts = []
    for index in range(count):
        frames = 1 if index % 8 == 0 else 17
        texts.append(caption(rng, sample_scene(rng, frames=frames), frames, wording).text.lower().rstrip("."))
    return texts


def test_heldout_captions_are_new_but_made_of_known_words():
    seen, kept = set(draw("train", 5000)), set(draw("heldout"))
    assert seen.isdisjoint(kept)
    assert len(seen) > 3500

    def words(texts):
        return {word for text in texts for word in text.split()}

    known = {word.strip(",") for word in words(seen)}
    assert {word.strip(",") for word in words(kept)} <= known
    assert {word.strip(",") for word in words(draw("unseen"))} - known


def test_plain_prompts_are_common():
    texts = draw("train")
    plain = [text for text in texts if re.fullmatch(r"an? \w+ \w+ \w+s( right| left| up| down)?", text)]
    assert len(plain) > 0.02 * len(texts)


def test_two_things_are_told_apart_by_colour():
    rng = np.random.default_rng(0)
    for _ in range(200):
        scene = sample_scene(rng, objects=2)
        assert all("colour" in said for said in caption(rng, scene).stated)


def test_an_unknown_wording_is_refused():
    with pytest.raises(UsageError, match="no wording 'slang'"):
        caption(np.random.default_rng(0), sample_scene(np.random.default_rng(0)), wording="slang")
