"""Conditions: what is additive, what is exclusive, and who is named when two plugins collide."""

from __future__ import annotations

import pytest
import torch
from hy_core.condition import Condition, merge, mergeable
from hy_core.errors import ConflictError, PluginError
from hypothesis import given
from hypothesis import strategies as st

FRAMES, SIZE, WIDTH = 4, (2, 3), 5


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def condition(rows=1):
    text = [rand(3 + row, WIDTH, seed=row) for row in range(rows)]
    return Condition(text=text, pooled=rand(rows, 2), frames=FRAMES, size=SIZE)


def latents(frames, seed=0, rows=1):
    return rand(rows, 4, frames, *SIZE, seed=seed)


def test_text_joins_the_stream_before_and_after_the_prompt():
    cond, before, after = (
        condition(2),
        rand(2, WIDTH, seed=8),
        [rand(1, WIDTH, seed=9), rand(4, WIDTH, seed=10)],
    )
    cond.add_text("i2v", before)
    cond.add_text("emotion", after, before=False)
    for row, tokens in enumerate(cond.tokens()):
        assert torch.equal(tokens, torch.cat([before, cond.text[row], after[row]]))


def test_two_plugins_cannot_pin_one_frame():
    cond = condition()
    cond.fix_frames("i2v", [0, 2], latents(2))
    cond.fix_frames("avatar", [1], latents(1))
    with pytest.raises(ConflictError, match="i2v and avatar both set latent frame 2"):
        cond.fix_frames("avatar", [-2], latents(1))
    assert sorted(cond.fixed_frames) == [0, 1, 2]


def test_a_refused_pin_leaves_nothing_behind():
    cond = condition()
    cond.fix_frames("i2v", [2], latents(1))
    with pytest.raises(ConflictError):
        cond.fix_frames("avatar", [1, 2], latents(2))
    assert sorted(cond.fixed_frames) == [2]


def test_two_plugins_cannot_replace_the_prompts_tokens():
    cond = condition()
    cond.set_text("i2v", [rand(7, WIDTH)], pooled=rand(1, 2, seed=3))
    assert cond.tokens()[0].shape == (7, WIDTH)
    with pytest.raises(ConflictError, match="i2v and avatar"):
        cond.set_text("avatar", [rand(7, WIDTH)])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda c: c.fix_frames("dawn", [FRAMES], latents(1)),
            "dawn: fix_frames: frame 4: the video has 4 latent frames",
        ),
        (lambda c: c.fix_frames("dawn", [1, -3], latents(2)), "dawn: fix_frames names a frame twice"),
        (
            lambda c: c.fix_frames("dawn", [1], latents(2)),
            r"dawn: fix_frames takes latents \[1, C, 1, 2, 3\]",
        ),
        (lambda c: c.add_context("dawn", latents(2), at=[0]), "dawn: add_context takes latents"),
        (lambda c: c.add_context("dawn", latents(1), at=[0], time="late"), "dawn: add_context takes time"),
        (lambda c: c.add_text("dawn", rand(2, WIDTH + 1)), "dawn: add_text takes tokens"),
        (lambda c: c.add_text("dawn", [rand(2, WIDTH)] * 3), "dawn: add_text takes 1 or 1 rows, not 3"),
        (lambda c: c.set_text("dawn", []), "dawn: set_text takes 1 rows, not 0"),
    ],
)
def test_misuse_names_the_plugin(call, message):
    with pytest.raises(PluginError, match=message):
        call(condition())


def test_held_latents_have_the_pinned_values_in_every_row():
    cond, value, x = condition(2), latents(1, seed=3), latents(FRAMES, rows=2)
    assert cond.with_fixed_frames(x) is x
    cond.fix_frames("i2v", [1], value)
    held = cond.with_fixed_frames(x)
    assert torch.equal(held[:, :, 1], value[:, :, 0].expand(2, -1, -1, -1))
    assert torch.equal(held[:, :, [0, 2, 3]], x[:, :, [0, 2, 3]])


def test_a_copy_is_independent():
    cond = condition()
    cond.fix_frames("i2v", [0], latents(1))
    other = cond.copy(negative=True, text=[rand(1, WIDTH)])
    other.fix_frames("i2v", [1], latents(1))
    other.set_adapter_inputs("dawn", 1)
    other.add_text("dawn", rand(1, WIDTH))
    other.add_context("dawn", latents(1), at=[-1])
    assert (
        sorted(cond.fixed_frames) == [0]
        and not cond.adapter_inputs
        and not cond.contexts
        and not cond.negative
    )
    assert cond.tokens()[0].shape == (3, WIDTH)
    assert sorted(other.fixed_frames) == [0, 1]


CONTRIBUTIONS = {
    "text": lambda c: c.add_text("text", rand(2, WIDTH, seed=1)),
    "words": lambda c: c.add_text("words", rand(3, WIDTH, seed=2), before=False),
    "tokens": lambda c: c.add_text("tokens", [rand(1, WIDTH, seed=3)]),
    "portrait": lambda c: c.add_context("portrait", latents(1, seed=4), at=[-1], time="video"),
    "clip": lambda c: c.add_context("clip", latents(2, seed=5), at=[-3, -2]),
    "first": lambda c: c.fix_frames("first", [0], latents(1, seed=6)),
    "last": lambda c: c.fix_frames("last", [-1], latents(1, seed=7)),
    "dawn": lambda c: c.set_adapter_inputs("dawn", rand(1, FRAMES, 1, seed=8)),
    "night": lambda c: c.set_adapter_inputs("night", "dark"),
}


def said(cond):
    """All that the network would see, comparable with ==."""
    shown = [(c.owner, c.at, c.time, c.latents.tolist()) for c in cond.contexts]
    fixed_frames = [
        (place, pin.owner, pin.latent.tolist()) for place, pin in sorted(cond.fixed_frames.items())
    ]
    adapter_inputs = sorted((owner, str(value)) for owner, value in cond.adapter_inputs.items())
    return [tokens.tolist() for tokens in cond.tokens()], shown, fixed_frames, adapter_inputs


@given(st.permutations(sorted(CONTRIBUTIONS)), st.sets(st.sampled_from(sorted(CONTRIBUTIONS))))
def test_the_order_of_plugins_does_not_matter(order, chosen):
    ordered, shuffled = condition(), condition()
    for name in sorted(chosen):
        CONTRIBUTIONS[name](ordered)
    for name in order:
        if name in chosen:
            CONTRIBUTIONS[name](shuffled)
    assert said(ordered) == said(shuffled)


def fed(value):
    cond = condition()
    cond.set_adapter_inputs("dawn", value)
    return cond


@pytest.mark.parametrize(
    ("one", "two", "joined"),
    [
        (torch.zeros(1, 4), torch.ones(1, 4), torch.tensor([[0.0] * 4, [1.0] * 4])),
        ({"mask": torch.zeros(1, 2), "name": "x"}, {"mask": torch.ones(1, 2), "name": "x"}, None),
        ([torch.zeros(1, 2), 3], [torch.ones(1, 2), 3], None),
    ],
)
def test_feeds_of_one_form_are_joined(one, two, joined):
    assert mergeable([fed(one), fed(two)])
    feed = merge([fed(one), fed(two)]).adapter_inputs["dawn"]
    if joined is not None:
        assert torch.equal(feed, joined)
    elif isinstance(feed, dict):
        assert torch.equal(feed["mask"], torch.tensor([[0.0, 0.0], [1.0, 1.0]])) and feed["name"] == "x"
    else:
        assert torch.equal(feed[0], torch.tensor([[0.0, 0.0], [1.0, 1.0]])) and feed[1] == 3


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (torch.zeros(1, 4), torch.zeros(1, 5)),  # another shape
        (torch.zeros(5, 4), torch.zeros(5, 4)),  # rows aren't first
        (2, 3),
        ({"a": 1}, {"b": 1}),
        (object(), object()),
    ],
)
def test_feeds_of_different_form_are_not(one, two):
    assert not mergeable([fed(one), fed(two)])
    assert mergeable([fed(one)])


@given(st.lists(st.integers(1, 3), min_size=1, max_size=3))
def test_merging_keeps_every_row(rows):
    conds = []
    for seed, count in enumerate(rows):
        cond = condition(count)
        cond.add_text("i2v", rand(2, WIDTH, seed=seed))
        cond.fix_frames("i2v", [1], latents(1, seed=seed))
        cond.add_context("clip", latents(1, seed=seed + 10, rows=count), at=[-1])
        conds.append(cond)
    merged = merge(conds)
    assert merged.rows == sum(rows)
    every = [tokens for cond in conds for tokens in cond.tokens()]
    assert all(torch.equal(a, b) for a, b in zip(merged.tokens(), every, strict=True))
    assert torch.equal(merged.pooled, torch.cat([cond.pooled for cond in conds]))
    x = rand(sum(rows), 4, FRAMES, *SIZE, seed=99)
    apart = torch.cat([cond.with_fixed_frames(part) for cond, part in zip(conds, x.split(rows), strict=True)])
    assert torch.equal(merged.with_fixed_frames(x), apart)
    assert len(merged.contexts[0].latents) == sum(rows)
