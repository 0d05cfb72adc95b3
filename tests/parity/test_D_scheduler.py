"""Golden cases D: the noise levels, time steps and trajectories of the reference schedulers, and rotary tables."""

from __future__ import annotations

import pytest
import torch

from hy_core.flow.sampler import sample_euler
from hy_core.flow.schedule import shifted_sigmas
from parity.cases import cases


def fake_velocity(x, sigma, step):
    """The velocity that the references were run with (the case's notes): a function of x and the time step."""
    return 0.7 * torch.sin(1.3 * x + sigma * 1000 / 500) - 0.2 * x


def close(ours, theirs, tolerance):
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=0)


@pytest.mark.parametrize(("case", "run"), cases("D"))
def test_schedule_and_trajectory(case, run):
    scalars, inputs, outputs = case.scalars(run), case.inputs(run), case.outputs(run)
    checked = set()
    if "rope_dim_list" in scalars:
        pytest.skip("a rotary table: see test_rotary_table")
    sigmas = shifted_sigmas(scalars["steps"], scalars["shift"])
    if "sigmas" in outputs:
        close(sigmas, outputs["sigmas"], case.tolerance(run, "sigmas"))
        checked.add("sigmas")
    if "timesteps" in outputs:
        close(sigmas[:-1] * 1000, outputs["timesteps"], case.tolerance(run, "timesteps"))
        checked.add("timesteps")
    if "latents" in outputs:
        path = [inputs["x"]]
        sample_euler(fake_velocity, inputs["x"], sigmas, lambda step, steps, x, clean: path.append(x))
        close(torch.stack(path), outputs["latents"], case.tolerance(run, "latents"))
        checked.add("latents")
    assert checked == set(outputs)
