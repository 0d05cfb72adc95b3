"""Long videos in windows, and steps that reuse."""

from __future__ import annotations

import pytest
import torch
from hy_core.condition import Condition, window
from hy_core.errors import ConflictError, HyError
from hy_core.flow.cache import StepCache
from hy_core.flow.guidance import Branch, Guided
from hy_core.flow.policy import SamplingPolicy
from hy_core.flow.windows import Windows, counts
from hypothesis import given
from hypothesis import strategies as st


@given(st.integers(1, 40), st.integers(0, 20), st.integers(1, 130), st.integers(0, 60))
def test_every_frame_is_in_a_window_of_every_step(length, shift, frames, step):
    windows = Windows(length, shift).at(step, frames)
    assert min(counts(windows, frames)) >= 1
    for one in windows:
        assert len(one) == min(length, frames) == len(set(one))
        turns = [(b - a) % frames for a, b in zip(one, one[1:], strict=False)]
        assert all(turn == 1 % frames for turn in turns)


def test_windows_move_with_the_steps():
    windows = Windows(4, 3)
    assert windows.at(0, 10)[0] == [0, 1, 2, 3]
    assert windows.at(1, 10)[0] == [7, 8, 9, 0]
    with pytest.raises(HyError):
        Windows(0)


def test_a_video_that_fits_is_not_cut(tiny):
    x, sigma = tiny.latents(), torch.tensor(0.7)
    cond = tiny.condition()
    whole = Guided(tiny.dit, cond)(x, sigma, 0)
    assert torch.equal(Guided(tiny.dit, cond, windows=Windows(33, 10))(x, sigma, 3), whole)


def test_a_window_is_a_video_of_its_own(tiny):
    """Each window's velocity is what the network says of those frames alone; what two share is their mean."""
    cond, x, sigma = tiny.condition(), tiny.latents(), torch.tensor(0.7)
    guided = Guided(tiny.dit, cond, windows=Windows(2, 1))
    parts = list(guided.parts(x, sigma, 1))
    assert [frames for frames, _ in parts] == [[2, 0], [1, 2]]
    for frames, velocity in parts:
        alone = Guided(tiny.dit, tiny.condition().copy(frames=2))(x[:, :, frames], sigma, 0)
        assert torch.equal(velocity, alone)
    whole = guided(x, sigma, 1)
    assert torch.allclose(whole[:, :, 2], (parts[0][1][:, :, 0] + parts[1][1][:, :, 1]) / 2)
    assert torch.equal(whole[:, :, 0], parts[0][1][:, :, 1])


def test_what_a_window_sees():
    text = [torch.randn(3, 8)]
    cond = Condition(text, torch.randn(1, 4), 5, (2, 2))
    cond.fix_frames("a", [3], torch.randn(1, 4, 1, 2, 2))
    cond.set_adapter_inputs("b", {"frames": torch.arange(5.0)[None], "all": torch.ones(1, 7)})
    cond.set_adapter_inputs("c", 5, lambda value, frames: (value, tuple(frames)))
    cut = window(cond, [3, 4, 0])
    assert cut.frames == 3 and list(cut.fixed_frames) == [0]
    assert cut.adapter_inputs["b"]["frames"].tolist() == [[3.0, 4.0, 0.0]] and cut.adapter_inputs["b"][
        "all"
    ].shape == (1, 7)
    assert cut.adapter_inputs["c"] == (5, (3, 4, 0))
    assert window(cond, range(5)) is cond


def test_a_reused_step_runs_the_last_blocks_only(tiny):
    cond, x = tiny.condition(), tiny.latents()
    ran = []
    first, last = tiny.dit.double_blocks[0], tiny.dit.single_blocks[-1]
    handles = [
        block.register_forward_hook(lambda *_, n=name: ran.append(n))
        for name, block in (("f", first), ("l", last))
    ]
    guided = Guided(tiny.dit, cond, steps=4, cache=StepCache(lambda step, steps: step != 2))
    found = [guided(x, torch.tensor(0.9 - step / 10), step) for step in range(4)]
    assert "".join(ran) == "flfl" + "l" + "fl"
    plain = Guided(tiny.dit, cond)
    for step in (0, 1, 3):
        assert torch.equal(found[step], plain(x, torch.tensor(0.9 - step / 10), step))
    assert not torch.equal(found[2], plain(x, torch.tensor(0.7), 2))
    for handle in handles:
        handle.remove()


def test_the_cache_follows_windows_that_move(tiny):
    """At the time it was kept at, a reused step gives the same numbers for the window it was kept for."""
    cond, x, sigma = tiny.condition(), tiny.latents(), torch.tensor(0.7)
    guided = Guided(tiny.dit, cond, windows=Windows(2, 0), cache=StepCache(lambda step, steps: step == 0))
    kept = list(guided.parts(x, sigma, 0))
    again = list(guided.parts(x + 1, sigma, 1))
    assert torch.equal(again[-1][1], kept[-1][1])  # the last to write; frames of the first were overwritten
    assert again[0][1].shape == kept[0][1].shape


def test_a_scale_of_steps_in_place_of_cfg(tiny):
    from dataclasses import replace

    from hy_core import Conditioner, generate

    class Falling(Conditioner):
        """Guidance that falls."""

        def plan_sampling(self, request, cond, policy):
            policy.set_scale(self.name, lambda step, steps: 3.0 if step == 0 else 1.0)

    request = replace(tiny.request, cfg=2.0, negative="noise")
    plain = generate(request, model=tiny.model).frames
    assert (generate(request, [Falling()], model=tiny.model).frames != plain).any()
    policy = SamplingPolicy()
    policy.set_windows("a", Windows(9, 3))
    with pytest.raises(ConflictError, match="a and b both set the run's windows"):
        policy.set_windows("b", Windows(5, 1))
    assert Branch(tiny.condition(), 2).at(0, 1) == 2
