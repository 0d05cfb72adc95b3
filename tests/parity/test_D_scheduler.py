"""Golden cases D: noise levels, time steps and trajectories of the schedulers, and rotary tables."""

from __future__ import annotations

import pytest
import torch
from hy_core.dit.rope import rotate, table
from hy_core.flow.sampler import sample_euler
from hy_core.flow.schedule import shifted_sigmas
from parity.cases import cases


def fake_velocity(x, sigma, step):
    """The velocity that the references were run with, by the case's notes."""
    return 0.7 * torch.sin(1.3 * x + sigma * 1000 / 500) - 0.2 * x


def close(ours, theirs, tolerance):
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=0)


@pytest.mark.parametrize(("case", "run"), cases("D"))
def test_schedules_trajectories_and_rotary_tables(case, run):
    scalars, inputs, outputs = case.scalars(run), case.inputs(run), case.outputs(run)
    checked = set()
    if "rope_dim_list" in scalars:
        axes = [torch.arange(size) for size in scalars["sizes"]]
        turns = table(axes, scalars["rope_dim_list"], scalars["theta"])
        right = torch.tensor([1.0, 0.0]).repeat(len(turns), 1, sum(scalars["rope_dim_list"]) // 2)
        turned = rotate(right, turns)[:, 0].unflatten(1, (-1, 2))  # each pair (1, 0) becomes (cos, sin)
        for name, ours in zip(("cos", "sin"), turned.unbind(2), strict=True):
            close(ours.repeat_interleave(2, dim=1), outputs[name], case.tolerance(run, name))
        return
    sigmas = shifted_sigmas(scalars["steps"], scalars.get("shift", 1.0))
    if not scalars.get("reverse", True):  # core facts 4.1; ours has no such mode, as the weights have none
        sigmas = 1 - sigmas
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
