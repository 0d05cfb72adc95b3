"""Adapters: nothing outside their masks changes, to the bit; several tasks stand side by side; the base stays."""

from __future__ import annotations

import copy

import pytest
import torch
from hy_avatar import latent_inputs, network
from hy_avatar.adapters import Adapters, Attend, Bottleneck
from hy_avatar.config import AvatarConfig, Expression, Speech, Task
from hy_core.errors import ConflictError, PluginError, UsageError
from hy_core.flow.denoise import Denoiser
from hy_core.testing.tiny import randomised
from hypothesis import given, settings
from hypothesis import strategies as st

WIDTH = 16
CONFIG = AvatarConfig(
    speech=Speech(window=4, layers=2, channels=3, hidden=8, inner=8),
    expression=Expression(features=6, hidden=8, tokens=5, inner=8, every_double=2, every_single=2),
    pose="guided",
    tasks={"smile": Task(rank=4)},
)


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def feed_for(tiny, speakers=1, config=CONFIG, seed=0):
    """A whole feed for tiny's 3 latent frames of 2 x 2 patches."""
    frames, patches, pixels = 3, 4, 9
    mask = torch.zeros(1, speakers, frames, patches, 1)
    for speaker in range(speakers):
        mask[:, speaker, :, speaker] = 1 - 0.25 * speaker
    return {
        "frames": frames,
        "speech": {"features": rand(1, speakers, pixels, 4, 2, 3, seed=seed), "mask": mask},
        "expression": {"features": rand(1, speakers, pixels, 6, seed=seed + 1), "mask": mask},
        "smile": {"mask": mask},
        "reference": rand(1, 16, frames, 4, 4, seed=seed + 2),
        "pose": rand(1, 16, frames, 4, 4, seed=seed + 3),
        "motion_head": torch.full((1, 4), 25.0),
        "motion_expression": torch.full((1, 4), 30.0),
        "fps": torch.tensor([25.0]),
    }


def extended(tiny, config=CONFIG, awake=True):
    dit = copy.deepcopy(tiny.dit)
    network.attach_modules(dit, "avatar", config)
    if awake:
        for port in (dit.adapter_inputs, dit.embed, dit.time):
            randomised(port, 5)
        for block in (*dit.double_blocks, *dit.single_blocks):
            randomised(block.after, 6)
    return dit.eval().requires_grad_(False)


def answer(dit, tiny, feed, context=False):
    cond = tiny.condition()
    if context:
        cond.add_context("avatar", rand(1, 16, 1, 4, 4, seed=9), [-1], "video")
    if feed is not None:
        cond.set_adapter_inputs("avatar", feed, network.slice_frames)
    return Denoiser(dit, cond)(tiny.latents(), 0.6)


@given(
    st.integers(0, 1000),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 6),
    st.integers(0, 2),
    st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_outside_the_masks_not_a_bit_changes(seed, speakers, frames, patches, context, damaged):
    torch.manual_seed(seed)
    adapters = Adapters()
    adapters.attach("speech", Attend(WIDTH, WIDTH, inner=8, gate="scalar"))
    adapters.attach("task", Bottleneck(WIDTH, 4))
    randomised(adapters, seed)
    x = torch.randn(2, context + frames, patches, WIDTH)
    x.flatten()[::7] = -0.0
    mask = (torch.rand(2, speakers, frames, patches, 1) > 0.5) * torch.rand(2, speakers, frames, patches, 1)
    tokens = torch.randn(2, speakers, frames, 5, WIDTH)
    if damaged:  # even what isn't a number stays inside
        tokens[:, :, 0] = torch.nan
    out = adapters(x, {"frames": frames, "speech": {"tokens": tokens, "mask": mask}, "task": {"mask": mask}})
    closed = (mask.sum(1) == 0).squeeze(-1)
    same = x.view(torch.int32) == out.view(torch.int32)
    assert same[:, :context].all()
    assert same[:, context:][closed].all()
    if not damaged and not closed.all():
        assert not same[:, context:][~closed].all()


def test_untrained_they_change_nothing(tiny):
    feed = feed_for(tiny)
    assert torch.equal(answer(extended(tiny, awake=False), tiny, feed), answer(tiny.dit, tiny, None))
    assert not torch.equal(answer(extended(tiny), tiny, feed), answer(tiny.dit, tiny, None))


@pytest.mark.parametrize("reference", ["add", "channel", "none"])
def test_every_reference_form_starts_from_the_base(tiny, reference):
    config = AvatarConfig(speech=None, controls=0, reference=reference)
    feed = {name: value for name, value in feed_for(tiny).items() if name in ("frames", "reference")}
    dit = extended(tiny, config, awake=False)
    assert torch.equal(answer(dit, tiny, feed), answer(tiny.dit, tiny, None))
    if reference != "none":
        woken = answer(extended(tiny, config), tiny, feed)
        assert not torch.equal(woken, answer(tiny.dit, tiny, None))


def test_detached_the_network_is_what_it_was(tiny):
    dit = extended(tiny)
    keys = set(tiny.dit.state_dict())
    for port in (
        dit.adapter_inputs,
        dit.embed,
        dit.time,
        *(b.after for b in (*dit.double_blocks, *dit.single_blocks)),
    ):
        if "avatar" in port:
            port.detach("avatar")
    assert set(dit.state_dict()) == keys
    assert torch.equal(answer(dit, tiny, None), answer(tiny.dit, tiny, None))


def test_a_task_comes_and_goes_alone(tiny):
    """Side by side: the sum of what each adds, whatever the order; one taken out leaves the others."""
    adapters = Adapters()
    adapters.attach("a", Bottleneck(WIDTH, 4))
    adapters.attach("b", Bottleneck(WIDTH, 4, gate="channel"))
    randomised(adapters["a"], 1), randomised(adapters["b"], 2)
    x, feed = rand(1, 2, 3, WIDTH), {"frames": 2}

    def change(**tasks):
        return adapters(x, feed | {name: {"strength": strength} for name, strength in tasks.items()}) - x

    assert torch.allclose(change(a=1.0, b=1.0), change(a=1.0) + change(b=1.0), atol=1e-6)
    assert torch.allclose(change(a=0.5), change(a=1.0) / 2, atol=1e-6)
    assert torch.equal(adapters(x, feed), x)
    before = change(b=1.0)
    with pytest.raises(ConflictError):
        adapters.attach("a", Bottleneck(WIDTH, 4))
    adapters.detach("a")
    assert torch.equal(change(b=1.0), before)
    with pytest.raises(PluginError):
        adapters.detach("a")


def test_the_number_of_a_bottleneck_s_parameters():
    module = Bottleneck(WIDTH, 4, gate="none")
    count = sum(one.numel() for name, one in module.named_parameters() if not name.startswith("norm"))
    assert count == 2 * WIDTH * 4 + 4 + WIDTH


def test_speakers_may_change_places(tiny):
    """Two streams of speech, with their masks, in the other order: the same clip."""
    dit, feed = extended(tiny), feed_for(tiny, speakers=2)
    swapped = dict(feed)
    for task in ("speech", "expression"):
        swapped[task] = {name: value.flip(1) for name, value in feed[task].items()}
    assert torch.allclose(answer(dit, tiny, feed), answer(dit, tiny, swapped), atol=1e-6)
    only_tracks = {**feed, "speech": {**feed["speech"], "features": feed["speech"]["features"].flip(1)}}
    assert not torch.allclose(answer(dit, tiny, feed), answer(dit, tiny, only_tracks), atol=1e-4)


def test_speech_moves_with_the_frames(tiny):
    """Sound that comes four pixel frames later reaches the tokens one latent frame later."""
    read = extended(tiny).adapter_inputs["avatar"]
    features = rand(1, 1, 21, 4, 2, 3)
    mask = torch.ones(1, 1, 6, 4, 1)
    one = read({"frames": 6, "speech": {"features": features, "mask": mask}})["speech"]["tokens"]
    late = torch.cat([features[:, :, :4], features[:, :, :-4]], 2)
    two = read({"frames": 6, "speech": {"features": late, "mask": mask}})["speech"]["tokens"]
    assert torch.allclose(two[:, :, 2:], one[:, :, 1:-1], atol=1e-6)


def test_a_window_hears_its_own_part():
    features, mask = torch.arange(17.0).view(1, 1, 17, 1, 1, 1), rand(1, 1, 5, 4, 1)
    feed = {"frames": 5, "speech": {"features": features, "mask": mask}, "reference": rand(1, 16, 2, 4, 4)}
    cut = network.slice_frames(feed, [3, 4, 0])
    assert cut["frames"] == 3
    assert cut["speech"]["features"].flatten().tolist() == [12, 13, 14, 15, 16, 0, 0, 0, 0]
    assert torch.equal(cut["speech"]["mask"], mask[:, :, [3, 4, 0]])
    assert cut["reference"] is feed["reference"]
    assert latent_inputs.extend_last_frame(feed["reference"], 3).shape[2] == 3


def test_rows_go_through_together(tiny):
    dit, one, two = extended(tiny), feed_for(tiny), feed_for(tiny, seed=20)
    from hy_core.condition import merge

    conds = []
    for feed in (one, two):
        cond = tiny.condition()
        cond.set_adapter_inputs("avatar", feed, network.slice_frames)
        conds.append(cond)
    both = Denoiser(dit, merge(conds))(torch.cat([tiny.latents()] * 2), 0.6)
    alone = torch.cat([Denoiser(dit, cond)(tiny.latents(), 0.6) for cond in conds])
    assert torch.allclose(both, alone, atol=1e-5)


def test_context_is_left_alone(tiny):
    """Frames that are only looked at hear nothing: with closed masks nothing changes, with a context too."""
    dit, feed = (
        extended(tiny, AvatarConfig(speech=CONFIG.speech, controls=0, reference="none")),
        feed_for(tiny),
    )
    closed = {**feed, "speech": {**feed["speech"], "mask": torch.zeros_like(feed["speech"]["mask"])}}
    assert torch.equal(answer(dit, tiny, closed, context=True), answer(tiny.dit, tiny, None, context=True))
    assert not torch.equal(answer(dit, tiny, feed, context=True), answer(tiny.dit, tiny, None, context=True))


def test_gradients_at_the_start(tiny):
    """Zero-initialised: the last layer learns first, and it does learn."""
    dit = extended(tiny, awake=False).requires_grad_(True)
    answer(dit, tiny, feed_for(tiny)).square().mean().backward()
    attend = dit.double_blocks[1].after["avatar"]["speech"].attend
    assert attend.proj.weight.grad.abs().sum() > 0
    assert attend.q.weight.grad.abs().sum() == 0
    assert dit.embed["avatar"].pose_in.proj.weight.grad.abs().sum() > 0


def test_a_config_as_json():
    assert AvatarConfig.from_json(CONFIG.to_json()) == CONFIG
    with pytest.raises(UsageError):
        AvatarConfig.from_json({"nonsense": 1})
    with pytest.raises(UsageError, match="reference"):
        AvatarConfig(reference="sideways")
