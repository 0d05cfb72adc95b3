"""Context, pins and guidance around the network, on a tiny DiT."""

from __future__ import annotations

import pytest
import torch
from hy_core.condition import Condition, merge, mergeable
from hy_core.dit import Additive, DiT, DiTConfig, embedded_guidance
from hy_core.flow.denoise import Denoiser
from hy_core.flow.guidance import Branch, Guided, combine
from hy_core.flow.sampler import sample_euler, sample_heun, sample_stochastic
from hy_core.flow.schedule import shifted_sigmas

CONFIG = DiTConfig(
    in_channels=4,
    out_channels=4,
    width=24,
    heads=2,
    depth_double=1,
    depth_single=1,
    rope_dims=(4, 4, 4),
    text_dim=8,
    pooled_dim=6,
    guidance=True,
)
FRAMES, SIZE = 3, (4, 6)


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def dit():
    torch.manual_seed(0)
    dit = DiT(CONFIG)
    for parameter in dit.parameters():  # the start values make every block the identity
        torch.nn.init.normal_(parameter, std=0.1)
    return dit.eval().requires_grad_(False)


def condition(seed=0, length=5, scale=6.0, **kwargs):
    return Condition(
        text=[rand(length, 8, seed=seed)],
        pooled=rand(1, 6, seed=seed + 100),
        frames=FRAMES,
        size=SIZE,
        guidance=embedded_guidance(scale, torch.float32).reshape(1),
        **kwargs,
    )


X = rand(1, 4, FRAMES, *SIZE, seed=7)


def test_velocity_is_the_networks(dit):
    cond = condition()
    prepared = dit.prepare(cond.text, cond.pooled, torch.arange(FRAMES), SIZE, cond.guidance)
    theirs = dit(X, torch.full((1, FRAMES), 0.3), prepared)
    assert torch.equal(Denoiser(dit, cond)(X, 0.3), theirs)


def test_work_of_prompt_and_shape_is_done_once_a_run(dit, monkeypatch):
    calls = []
    prepare = DiT.prepare
    monkeypatch.setattr(DiT, "prepare", lambda self, *args: calls.append(1) or prepare(self, *args))
    guided = Guided(dit, condition(1), [Branch(condition(2), 3.0)], steps=4)
    sample_euler(guided, X, shifted_sigmas(4, 7.0))
    assert len(calls) == 2  # one for each branch, whatever the steps


@pytest.mark.parametrize("sample", [sample_euler, sample_heun, sample_stochastic])
def test_pinned_frames_are_held_and_run_clean(dit, sample):
    cond, value = condition(), rand(1, 4, 2, *SIZE, seed=9)
    cond.fix_frames("i2v", [0, -1], value)
    denoise = Denoiser(dit, cond)
    velocity = denoise(X, 0.8)
    assert not velocity[:, :, [0, 2]].any() and velocity[:, :, 1].any()
    prepared = dit.prepare(cond.text, cond.pooled, torch.arange(FRAMES), SIZE, cond.guidance)
    held = torch.stack([value[:, :, 0], X[:, :, 1], value[:, :, 1]], 2)
    given = torch.tensor([[True, False, True]])
    theirs = dit(held, torch.tensor([[0.0, 0.8, 0.0]]), prepared, is_fixed=given)
    assert torch.equal(velocity[:, :, 1], theirs[:, :, 1])
    end = sample(
        Guided(dit, cond, steps=3), X, shifted_sigmas(3, 5.0), before=lambda x, *_: cond.with_fixed_frames(x)
    )
    assert torch.equal(end[:, :, [0, 2]], value)
    assert not torch.allclose(end[:, :, 1], X[:, :, 1])


@pytest.mark.parametrize("time", ["clean", "video"])
def test_context_frames_stand_before_the_video_at_their_own_place_and_time(dit, time):
    cond, shown = condition(), rand(1, 4, 2, *SIZE, seed=9)
    cond.add_context("avatar", shown, at=[-1, 0.5], time=time)
    velocity = Denoiser(dit, cond)(X, 0.8)
    at = torch.tensor([-1, 0.5, 0, 1, 2])
    prepared = dit.prepare(cond.text, cond.pooled, at, SIZE, cond.guidance)
    times = torch.tensor([[0.0, 0.0, 0.8, 0.8, 0.8]]) if time == "clean" else torch.full((1, 5), 0.8)
    given = torch.tensor([[True, True, False, False, False]]) if time == "clean" else None
    theirs = dit(torch.cat([shown, X], 2), times, prepared, is_fixed=given)
    assert velocity.shape == X.shape
    assert torch.equal(velocity, theirs[:, :, 2:])


def test_a_feed_of_the_videos_frames_leaves_context_alone(dit):
    adapter = Additive(1, CONFIG.width)
    torch.nn.init.normal_(adapter.proj.weight)
    cond, feed = condition(), rand(1, FRAMES, 1, seed=4)
    cond.add_context("avatar", rand(1, 4, 1, *SIZE, seed=9), at=[-1])
    plain = Denoiser(dit, cond)(X, 0.5)
    dit.time.attach("dawn", adapter)
    try:
        cond.set_adapter_inputs("dawn", feed)
        steered = Denoiser(dit, cond)(X, 0.5)
        cond.set_adapter_inputs("dawn", torch.zeros_like(feed))
        assert torch.equal(Denoiser(dit, cond)(X, 0.5), plain)
    finally:
        dit.time.detach("dawn")
    assert steered.shape == plain.shape and not torch.equal(steered, plain)


def test_each_row_and_frame_may_have_its_own_time(dit):
    cond = merge([condition(1), condition(2, length=7)])
    x = torch.cat([X, -X])
    both = Denoiser(dit, cond)(x, torch.tensor([0.2, 0.9]))
    for row, t in ((0, 0.2), (1, 0.9)):
        alone = Denoiser(dit, condition(row + 1, length=(5, 7)[row]))(x[[row]], t)
        torch.testing.assert_close(both[[row]], alone, atol=2e-6, rtol=0)
    times = torch.tensor([[0.1, 0.5, 0.9], [0.3, 0.3, 0.3]])
    frames = Denoiser(dit, cond)(x, times)
    torch.testing.assert_close(
        frames[[1]], Denoiser(dit, condition(2, length=7))(x[[1]], 0.3), atol=2e-6, rtol=0
    )


def test_gradients_flow_through_the_free_frames_only(dit):
    cond = condition()
    cond.fix_frames("i2v", [0], rand(1, 4, 1, *SIZE))
    x = X.clone().requires_grad_()
    Denoiser(dit, cond)(x, 0.5).square().mean().backward()
    assert x.grad[:, :, 1:].any() and not x.grad[:, :, 0].any()


# Guidance


def test_classifier_free_guidance_is_the_official_formula(dit):
    positive, negative = condition(1), condition(2, length=3)
    v_pos, v_neg = (Denoiser(dit, cond)(X, 0.6) for cond in (positive, negative))
    guided = Guided(dit, negative, [Branch(positive, 4.0)])(X, torch.tensor(0.6), 0)
    torch.testing.assert_close(guided, v_neg + 4.0 * (v_pos - v_neg), atol=1e-6, rtol=0)


def test_scale_one_runs_the_prompt_alone_and_scale_zero_the_base_alone(dit):
    positive, negative = condition(1), condition(2)
    for scale, alone in ((1.0, positive), (0.0, negative)):
        guided = Guided(dit, negative, [Branch(positive, scale)])
        assert torch.equal(guided(X, torch.tensor(0.6), 0), Denoiser(dit, alone)(X, 0.6))
        assert [cond is alone for _, cond in guided.weights(0)] == [True]


def test_branches_compose_as_a_sum_over_the_base(dit):
    base, text, sound = condition(1), condition(2), condition(3)
    v0, v1, v2 = (Denoiser(dit, cond)(X, 0.6) for cond in (base, text, sound))
    guided = Guided(dit, base, [Branch(text, 3.0), Branch(sound, 0.5), Branch(text, 1.0), Branch(base, 9.0)])
    expected = v0 + 4.0 * (v1 - v0) + 0.5 * (v2 - v0)
    torch.testing.assert_close(guided(X, torch.tensor(0.6), 0), expected, atol=1e-5, rtol=0)


def test_scales_may_change_on_the_way_and_swap_the_unconditional_half(dit):
    """The avatar's rule: guide against the negative prompt first, then against the silent positive one."""
    positive, negative, silent = condition(1), condition(2), condition(3)

    def until(step, early, late):
        return early if step < 2 else late

    guided = Guided(
        dit,
        negative,
        [
            Branch(positive, lambda step, steps: until(step, 7.0, 3.0)),
            Branch(silent, lambda step, steps: until(step, 0.0, 1 - 3.0)),
        ],
        steps=4,
    )
    v_pos, v_neg, v_silent = (Denoiser(dit, cond)(X, 0.6) for cond in (positive, negative, silent))
    sigma = torch.tensor(0.6)
    torch.testing.assert_close(guided(X, sigma, 1), v_neg + 7 * (v_pos - v_neg), atol=2e-6, rtol=0)
    torch.testing.assert_close(guided(X, sigma, 2), v_silent + 3 * (v_pos - v_silent), atol=2e-6, rtol=0)
    assert [cond for _, cond in guided.weights(1)] == [negative, positive]
    assert [cond for _, cond in guided.weights(2)] == [positive, silent]


def test_batched_branches_equal_branches_one_after_another(dit):
    positive, negative = condition(1, length=9), condition(2, length=3)
    for cond in (positive, negative):
        cond.fix_frames("i2v", [0], rand(1, 4, 1, *SIZE))
        cond.add_context("avatar", rand(1, 4, 1, *SIZE, seed=5), at=[-1])
    calls = []
    hook = dit.register_forward_hook(lambda *_: calls.append(1))
    try:
        apart = Guided(dit, negative, [Branch(positive, 4.0)])(X, torch.tensor(0.6), 0)
        assert len(calls) == 2
        together = Guided(dit, negative, [Branch(positive, 4.0)], batched=True)(X, torch.tensor(0.6), 0)
        assert len(calls) == 3
    finally:
        hook.remove()
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=0)


def test_conditions_of_different_form_are_not_merged():
    pinned = condition()
    pinned.fix_frames("i2v", [0], rand(1, 4, 1, *SIZE))
    assert mergeable([condition(1), condition(2, length=9)])
    assert not mergeable([condition(), pinned])


def test_combine_without_a_base():
    v = rand(2, 3)
    assert torch.equal(combine(None, [(1.0, v)]), v)
    torch.testing.assert_close(combine(None, [(3.0, v), (-2.0, -v)]), 5 * v)


# Embedded guidance


def test_trap_2_guidance_6_becomes_6016_in_bfloat16():
    """Core facts, trap 2: the scale is cast to the weights' dtype first and then multiplied by 1000."""
    scales = [1, 3.5, 5, 6, 7, 8, 9, 10]
    values = [1000, 3504, 4992, 6016, 7008, 8000, 9024, 9984]
    for scale, value in zip(scales, values, strict=True):
        assert float(embedded_guidance(scale, torch.bfloat16)) == value
        assert float(embedded_guidance(scale, torch.float32)) == scale * 1000
