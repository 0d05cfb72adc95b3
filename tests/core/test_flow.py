"""The path, its schedules and samplers, against their definitions and the official conventions."""

from __future__ import annotations

import math

import pytest
import torch
from hy_core.errors import UsageError
from hy_core.flow.path import clean, interpolate, velocity
from hy_core.flow.sampler import sample_euler, sample_heun, sample_stochastic
from hy_core.flow.schedule import (
    adaptive_shift,
    linear_quadratic_sigmas,
    sample_times,
    shifted_sigmas,
    sigmas_for,
)
from hypothesis import given
from hypothesis import strategies as st


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# The path


def test_time_zero_is_data_and_time_one_is_noise():
    data, noise = rand(2, 4, 3, 2, 2), rand(2, 4, 3, 2, 2, seed=1)
    assert torch.equal(interpolate(data, noise, torch.zeros(2)), data)
    assert torch.equal(interpolate(data, noise, torch.ones(2)), noise)


def test_velocity_is_the_derivative_of_the_path():
    data, noise = rand(1, 4, 3, 2, 2).double(), rand(1, 4, 3, 2, 2, seed=1).double()
    step = 1e-6
    slope = (
        interpolate(data, noise, torch.tensor([0.4 + step])) - interpolate(data, noise, torch.tensor([0.4]))
    ) / step
    torch.testing.assert_close(slope, velocity(data, noise), atol=0.1, rtol=0)
    exact = interpolate(data, noise, torch.tensor([1.0]).double()) - interpolate(
        data, noise, torch.tensor([0.0]).double()
    )
    torch.testing.assert_close(exact, velocity(data, noise))


def test_the_papers_form_is_the_negation_under_reversed_time():
    data, noise, t = rand(2, 4, 3, 2, 2), rand(2, 4, 3, 2, 2, seed=1), torch.tensor([0.2, 0.9])
    s = (1 - t)[:, None, None, None, None]
    paper_point, paper_velocity = s * data + (1 - s) * noise, data - noise
    torch.testing.assert_close(interpolate(data, noise, t), paper_point)
    assert torch.equal(velocity(data, noise), -paper_velocity)


def test_each_frame_may_have_its_own_time():
    data, noise = rand(2, 4, 3, 2, 2), rand(2, 4, 3, 2, 2, seed=1)
    times = torch.tensor([[0.0, 0.3, 1.0], [0.7, 0.1, 0.5]])
    mixed = interpolate(data, noise, times)
    for frame in range(3):
        alone = interpolate(data[:, :, [frame]], noise[:, :, [frame]], times[:, frame])
        assert torch.equal(mixed[:, :, [frame]], alone)


def test_the_true_velocity_points_back_to_the_data():
    data, noise, t = rand(2, 4, 3, 2, 2), rand(2, 4, 3, 2, 2, seed=1), torch.tensor([0.25, 0.75])
    torch.testing.assert_close(clean(interpolate(data, noise, t), velocity(data, noise), t), data)


# Schedules


@given(steps=st.integers(1, 200), shift=st.floats(0.1, 50))
def test_trap_1_reverse_is_the_only_mode(steps, shift):
    """Core facts, trap 1: the released weights need times that fall from noise, 1, to data, 0."""
    sigmas = shifted_sigmas(steps, shift)
    assert sigmas.dtype == torch.float32 and len(sigmas) == steps + 1
    assert sigmas[0] == 1 and sigmas[-1] == 0
    assert (sigmas.diff() < 0).all()


@pytest.mark.parametrize(
    ("steps", "shift", "first", "last", "high"),
    [
        (50, 7, [1, 0.99709, 0.99408], [0.22581, 0.125], 22),
        (50, 17, [1, 0.99880, 0.99756], [0.41463, 0.25758], 33),
        (20, 17, [1, 0.99691, 0.99351], [0.65385, 0.47222], 14),
        (10, 17, [1, 0.99351, 0.98551], [0.80952, 0.65385], 7),
    ],
)
def test_published_noise_levels(steps, shift, first, last, high):
    sigmas = shifted_sigmas(steps, shift)
    torch.testing.assert_close(sigmas[:3], torch.tensor(first), atol=1e-5, rtol=0)
    torch.testing.assert_close(sigmas[-3:-1], torch.tensor(last), atol=1e-5, rtol=0)
    assert int((sigmas > 0.9).sum()) == high


def test_shift_one_is_even():
    torch.testing.assert_close(shifted_sigmas(8, 1.0), torch.linspace(1, 0, 9))


def test_adaptive_shift_is_17_for_few_steps_7_for_many_and_falls_between():
    assert adaptive_shift(4) == adaptive_shift(19) == adaptive_shift(20) == 17
    assert adaptive_shift(50) == adaptive_shift(100) == 7
    shifts = [adaptive_shift(steps) for steps in range(20, 51)]
    ratios = [b / a for a, b in zip(shifts, shifts[1:], strict=False)]
    assert all(ratio < 1 for ratio in ratios)
    assert max(ratios) - min(ratios) < 1e-12
    assert adaptive_shift(35) == pytest.approx(math.sqrt(17 * 7))


@given(steps=st.integers(1, 300))
def test_linear_quadratic_falls_from_one_to_zero(steps):
    sigmas = linear_quadratic_sigmas(steps)
    assert sigmas[0] == 1 and sigmas[-1] == 0
    assert (sigmas.diff() < 0).all()


def test_linear_quadratic_follows_the_first_steps_of_a_linear_schedule_of_1000():
    """Movie Gen 3.4.2: 50 steps take the first 25 of 1000 linear ones, then ever larger ones."""
    sigmas = linear_quadratic_sigmas(50)
    torch.testing.assert_close(sigmas[:26], torch.linspace(1, 0, 1001)[:26], atol=1e-6, rtol=0)
    growth = -sigmas.double().diff()[25:]
    torch.testing.assert_close(growth.diff(), growth.diff().mean().expand(24), atol=1e-6, rtol=0)


def test_linear_quadratic_refuses_as_many_steps_as_it_emulates():
    with pytest.raises(UsageError, match="fewer than 1000"):
        linear_quadratic_sigmas(1000)


def test_sigmas_of_a_request():
    assert torch.equal(sigmas_for("shifted", 10, 3.0), shifted_sigmas(10, 3.0))
    assert torch.equal(sigmas_for("shifted", 10, None), shifted_sigmas(10, 17.0))
    assert torch.equal(sigmas_for("linear-quadratic", 10, 3.0), linear_quadratic_sigmas(10))
    with pytest.raises(UsageError, match="cosine"):
        sigmas_for("cosine", 10, None)


# Training times


def times(kind, count=40_000, **kwargs):
    return sample_times(count, kind, generator=torch.Generator().manual_seed(3), **kwargs)


@pytest.mark.parametrize("kind", ["logit-normal", "uniform", "mode", "mix"])
def test_training_times_are_symmetric_inside_and_repeatable(kind):
    drawn = times(kind)
    assert drawn.dtype == torch.float32 and drawn.shape == (40_000,)
    assert drawn.min() >= 1e-5 and drawn.max() <= 1 - 1e-5
    assert drawn.mean().item() == pytest.approx(0.5, abs=0.01)
    assert torch.equal(drawn, times(kind))


def test_training_times_differ_as_their_densities_do():
    spread = {kind: times(kind).std().item() for kind in ("logit-normal", "uniform", "mode", "mix")}
    assert spread["logit-normal"] == pytest.approx(0.2083, abs=0.004)
    assert spread["uniform"] == pytest.approx(1 / math.sqrt(12), abs=0.004)
    mixed = 0.7 * spread["logit-normal"] ** 2 + 0.3 * spread["uniform"] ** 2
    assert spread["mix"] == pytest.approx(math.sqrt(mixed), abs=0.004)
    # f(u) = 1 - u - 1.29 (cos^2(pi u/2) - 1 + u) has this second moment about 1/2, by numerical integration
    grid = (torch.arange(100_000).double() + 0.5) / 100_000
    mode = 1 - grid - 1.29 * (torch.cos(math.pi / 2 * grid) ** 2 - 1 + grid)
    assert spread["mode"] == pytest.approx(mode.std().item(), abs=0.004)


def test_training_shift_is_the_sampling_shift():
    plain, shifted = times("uniform"), times("uniform", shift=5.0)
    torch.testing.assert_close(shifted, 5 * plain / (1 + 4 * plain), atol=1e-4, rtol=0)


def test_unknown_time_sampler():
    with pytest.raises(UsageError, match="beta"):
        sample_times(1, "beta")


# Samplers


def exact(x, sigma, step):
    """dx/dt = x: from t = 1 to 0 the answer is x / e."""
    return x


@pytest.mark.parametrize(("sample", "order"), [(sample_euler, 1), (sample_heun, 2)])
def test_order_of_convergence(sample, order):
    start = torch.ones(1, 1, 1, 1, 1)
    # The last step of Heun is Euler's, whose error is of second order too.
    errors = [abs(sample(exact, start, torch.linspace(1, 0, n + 1)).item() - math.exp(-1)) for n in (16, 32)]
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.15)


@pytest.mark.parametrize("sample", [sample_euler, sample_heun, sample_stochastic])
def test_a_straight_path_is_walked_exactly(sample):
    data, noise = rand(2, 4, 3, 2, 2), rand(2, 4, 3, 2, 2, seed=1)
    # From every point that data and some noise make the velocity leads to the data.
    end = sample(lambda x, sigma, step: (x - data) / sigma, noise, shifted_sigmas(5, 7.0))
    torch.testing.assert_close(end, data, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("sample", "calls"), [(sample_euler, [0, 1, 2, 3]), (sample_heun, [0, 0, 1, 1, 2, 2, 3])]
)
def test_steps_are_counted_and_reported(sample, calls):
    seen, reports = [], []

    def model(x, sigma, step):
        seen.append(step)
        return torch.ones_like(x)

    end = sample(
        model, torch.zeros(1, 1, 1, 1, 1), torch.linspace(1, 0, 5), lambda *report: reports.append(report)
    )
    assert seen == calls
    assert [report[:2] for report in reports] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert torch.equal(reports[-1][2], end) and torch.equal(reports[-1][3], end)
    for _, _, _, estimate in reports:
        assert estimate.item() == pytest.approx(
            -1
        )  # a constant velocity points to the same data from everywhere


def test_trap_8_latents_stay_float32_between_steps():
    """Core facts, trap 8: the official loop keeps float32 even when the network runs in bfloat16."""
    seen = []

    def model(x, sigma, step):
        seen.append(x.dtype)
        return torch.full_like(x, 1e-4).bfloat16().float()

    start = torch.ones(1, 1, 1, 1, 1)
    end = sample_euler(model, start.bfloat16(), torch.linspace(1, 0, 11))
    assert end.dtype == torch.float32 and set(seen) == {torch.float32}
    assert end.item() != 1  # in bfloat16 each of these small steps would be lost


def test_the_stochastic_sampler_goes_to_the_data_and_back_with_other_noise():
    drawn = [rand(1, 4, 3, 2, 2, seed=seed) for seed in range(1, 4)]
    supply, begun, reports = iter(drawn), [], []

    def model(x, sigma, step):
        begun.append(x)
        return 0.3 * x

    sigmas = torch.tensor([0.84, 0.6, 0.4, 0.2, 0.0])
    start = rand(1, 4, 3, 2, 2)
    end = sample_stochastic(
        model, start, sigmas, lambda *one: reports.append(one), noise=lambda: next(supply)
    )
    for step, fresh in enumerate(drawn):
        clean = (1 - 0.3 * sigmas[step]) * begun[step]
        torch.testing.assert_close(reports[step][3], clean)
        torch.testing.assert_close(begun[step + 1], (1 - sigmas[step + 1]) * clean + sigmas[step + 1] * fresh)
    torch.testing.assert_close(end, (1 - 0.3 * sigmas[3]) * begun[3])
    assert next(supply, None) is None  # the last step ends at the data
    early = torch.tensor([1.0, 0.95, 0.9])  # Euler's rule, and no noise
    again = sample_stochastic(model, start, early, noise=lambda: next(supply))
    assert torch.equal(again, sample_euler(model, start, early))


def test_before_moves_the_latents_that_a_step_starts_from():
    def jump(x, sigma, step):
        return x + 1

    end = sample_euler(
        lambda x, sigma, step: torch.zeros_like(x), torch.zeros(1, 1, 1, 1, 1), torch.ones(4), before=jump
    )
    assert end.item() == 3
