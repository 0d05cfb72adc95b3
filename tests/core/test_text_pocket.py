"""The text encoders that come with the package."""

from __future__ import annotations

import warnings
from pathlib import Path

import hy_core
import pytest
import torch
from hy_core.text import TextEncoder

FOLDER = Path(hy_core.__file__).parent / "pocket"
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
SHAPES = ("circle", "square", "triangle", "star")
MOVES = ("moves right", "moves left", "rises", "falls", "bounces", "spins", "grows", "shrinks", "stays still")

if not (FOLDER / "llm/model.safetensors").is_file():
    pytest.skip("this checkout has no pocket weights", allow_module_level=True)


@pytest.fixture(scope="module")
def pocket():
    return TextEncoder.load(FOLDER, dtype=torch.float32)


def summary(pocket, prompt):
    """What both encoders make of a prompt: the state of its last token, and the pooled vector."""
    encoded = pocket.encode([prompt])
    return encoded.text[0][-1], encoded.pooled[0]


def alike(a, b):
    return torch.cosine_similarity(a, b, dim=0).item()


def test_sizes_are_those_of_the_pocket_dit(pocket):
    encoded = pocket.encode(["a red circle moves right", ""])
    assert [row.shape for row in encoded.text] == [(6, 128), (1, 128)]
    assert encoded.pooled.shape == (2, 64)


def test_the_files_stay_small():
    assert sum(f.stat().st_size for name in ("llm", "clip") for f in (FOLDER / name).iterdir()) < 3e6


def test_three_of_five_layers_run(pocket):
    assert len(pocket.llm.model.layers) == 3


def test_case_and_spaces_do_not_matter(pocket):
    plain, loud = pocket.encode(["a red circle moves right", " A RED\n Circle  moves right "]).text
    assert torch.equal(plain, loud)


def test_states_have_a_spread_of_about_one(pocket):
    prompts = [f"a {c} {s} {m}" for c, s, m in zip(COLOURS, SHAPES * 2, MOVES, strict=False)]
    encoded = pocket.encode(prompts)
    assert 0.7 < torch.cat(encoded.text).std() < 1.3
    assert 0.7 < encoded.pooled.std() < 1.3
    assert torch.cat(encoded.text).abs().max() < 20  # no outliers that half precision would suffer from


@pytest.mark.parametrize(
    ("other_words", "changed"),
    [
        (("a red circle moves right", "a crimson disc glides to the right"), "a blue circle moves right"),
        (("a red circle moves right", "a scarlet ball slides right"), "a red square moves right"),
        (("a big star spins", "a huge star twirls around"), "a small star spins"),
        (("a green square rises", "an emerald box climbs up"), "a green square falls"),
        (
            ("a pink star grows on white", "a rose star swells on a white background"),
            "a pink star grows on black",
        ),
        (("a red ball and a blue box", "a crimson disc and a navy square"), "a blue ball and a red box"),
    ],
)
def test_meaning_counts_more_than_words(pocket, other_words, changed):
    (state, pooled), (state_other, pooled_other) = (summary(pocket, prompt) for prompt in other_words)
    state_changed, pooled_changed = summary(pocket, changed)
    assert alike(state, state_other) > alike(state, state_changed)
    assert alike(pooled, pooled_other) > alike(pooled, pooled_changed)


@pytest.mark.parametrize("which", [0, 1], ids=["language model", "CLIP"])
@pytest.mark.parametrize(
    ("attribute", "values"), [(0, COLOURS), (1, SHAPES), (2, MOVES)], ids=["colour", "shape", "motion"]
)
def test_attributes_can_be_read_in_sentences_of_another_form(pocket, which, attribute, values):
    """The mean vector of each value over one form of sentence names the value in another form."""
    everything = [(c, s, m) for c in COLOURS for s in SHAPES for m in MOVES]
    by_value = {v: [row for row in everything if row[attribute] == v] for v in values}

    def vectors(rows, form):
        encoded = pocket.encode([form.format(*row) for row in rows])
        return (torch.stack([t[-1] for t in encoded.text]), encoded.pooled)[which]

    means = torch.stack([vectors(by_value[v], "a {} {} {}").mean(0) for v in values])
    centre = means.mean(0)
    right = total = 0
    for i, value in enumerate(values):
        asked = vectors(by_value[value][::3], "a film of the {} {} that {}") - centre
        guess = torch.cosine_similarity(asked[:, None], means - centre, dim=-1).argmax(-1)
        right, total = right + (guess == i).sum().item(), total + len(guess)
    assert right / total > 0.9


def test_words_it_never_saw_are_spelled_out(pocket):
    row, left_over = pocket.llm.tokens("ein Drache isst 红色 🦊")
    assert left_over == ""
    assert pocket.llm.tokenizer.decode(row, skip_special_tokens=True).strip() == "ein drache isst 红色 🦊"


def test_128_tokens_are_read_and_a_longer_prompt_warns(pocket):
    with pytest.warns(UserWarning, match="the language model reads 128 tokens .* CLIP reads 77 tokens"):
        encoded = pocket.encode(["a red circle moves right and " * 40])
    assert len(encoded.text[0]) == 128
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pocket.encode(["a red circle moves right and a small blue star bounces on a checkerboard"])
