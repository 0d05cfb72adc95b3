"""Golden cases G: the Foley network and its guided loop, its audio VAE, and its scheduler with all solvers."""

from __future__ import annotations

import pytest
import torch
from hy_audio.dit.sampling import sample_audio
from hy_audio.foley import DACConfig, Foley, FoleyConfig
from hy_audio.foley.solvers import released_solver
from hy_audio.foley.weights import fill_dac, fill_foley
from hy_core.flow.sampler import sample_euler
from hy_core.flow.schedule import shifted_sigmas
from parity.cases import Case, cases


def close(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float) -> None:
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=0)


def foley_of(case: Case) -> Foley:
    return fill_foley(FoleyConfig.from_official(case.model_config), case.weights())


@pytest.mark.parametrize(("case", "run"), cases("G", config_kind="foley_dit"))
def test_network_and_loop(case: Case, run: str) -> None:
    foley, inputs, outputs = foley_of(case), case.inputs(run), case.outputs(run)
    if "noise" in inputs:
        scalars, noise = case.scalars(run), inputs["noise"]
        visual, sync, length = inputs["clip_feat"], inputs["sync_feat"], noise.shape[2]
        nothing = foley.empty(len(noise), visual.shape[1], sync.shape[1])
        with torch.no_grad():
            wanted = foley.prepare(visual, sync, inputs["text_feat"], length)
            unwanted = foley.prepare(*nothing, inputs["uncond_text_feat"], length)
        steps, shift, cfg = scalars["steps"], scalars["shift"], scalars["scale"]
        latents = sample_audio(foley, noise, wanted, unwanted, steps=steps, shift=shift, cfg=cfg)
        close(latents, outputs["latents"], case.tolerance(run, "latents"))
        return
    with torch.no_grad():
        prepared = foley.prepare(
            inputs["clip_feat"], inputs["sync_feat"], inputs["cond"], inputs["x"].shape[2]
        )
        found = foley(inputs["x"], inputs["t"].double() / 1000, prepared)
    close(found, outputs["x"], case.tolerance(run, "x"))


@pytest.mark.parametrize(("case", "run"), cases("G", config_kind="dac_vae"))
def test_audio_vae(case: Case, run: str) -> None:
    vae, inputs, outputs = (
        fill_dac(DACConfig.from_dict(case.model_config), case.weights()),
        case.inputs(run),
        case.outputs(run),
    )
    with torch.no_grad():
        found = {"audio": vae.decode(inputs["z"])} if "z" in inputs else {}
        if "audio" in inputs:
            found["moments"] = vae.encode(inputs["audio"]).moments
    for name, expected in outputs.items():
        close(found[name], expected, case.tolerance(run, name))


@pytest.mark.parametrize(("case", "run"), cases("G", config_kind="foley_scheduler"))
def test_scheduler(case: Case, run: str) -> None:
    scalars, x, outputs = case.scalars(run), case.inputs(run)["x"], case.outputs(run)
    sigmas = shifted_sigmas(scalars["steps"], scalars["shift"])
    seen = []

    def velocity(x: torch.Tensor, sigma: torch.Tensor, step: int) -> torch.Tensor:
        """The velocity that the references were run with, by the case's notes."""
        seen.append(x)
        return 0.7 * torch.sin(1.3 * x + sigma * 1000 / 500) - 0.2 * x

    path = [x]
    mean = released_solver(scalars["solver"], velocity, sigmas)
    end = sample_euler(mean, x, sigmas, lambda step, steps, x, clean: path.append(x))
    found = {
        "sigmas": sigmas,
        "timesteps": sigmas[:-1] * 1000,
        "latents": torch.stack(path),
        "after_every_call": torch.stack([*seen[1:], end]),  # a call's result is where the next one looks
    }
    for name, expected in outputs.items():
        close(found[name], expected, case.tolerance(run, name))
