"""Golden cases of the VAE: whole, and tiled as the original project and diffusers tile."""

from __future__ import annotations

import pytest
import torch
from hy_core.vae import VAE, Axis, Tiling, VAEConfig
from parity.cases import Case, cases


def tiling_of(run: object, config: VAEConfig, diffusers: bool) -> Tiling | None:
    """What a run's `tiling` scalar says; without one, diffusers cuts long clips in time and the original nothing."""
    if run in ("none", "off", False):
        return None
    if run is None:
        return Tiling.DIFFUSERS_DEFAULT if diffusers else None
    if isinstance(run, list):
        height, width, frames, stride_height, stride_width, stride_frames = run
        return Tiling(Axis(frames, stride_frames), Axis(height, stride_height), Axis(width, stride_width))
    both = Tiling.official(config)
    return {
        "both": both,
        True: both,
        "spatial": Tiling(height=both.height, width=both.width),
        "temporal": Tiling(time=both.time),
    }[run]


@pytest.mark.parametrize("grad", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize(
    ("case", "run"), [*cases("C"), *cases("EI", config_kind=("vae", "diffusers_vae"), optional=True)]
)
def test_golden(case: Case, run: str, grad: bool) -> None:
    config = VAEConfig.from_dict(case.model_config)
    vae = VAE(config)
    vae.load_state_dict(case.weights())
    scalars, inputs, outputs = case.scalars(run), case.inputs(run), case.outputs(run)
    tiling = tiling_of(scalars.get("tiling"), config, "diffusers" in case.kind)
    with torch.set_grad_enabled(grad):
        if scalars["op"] == "encode":
            found = {"moments": vae.moments(inputs["x"], tiling)}
        else:
            found = {"sample": vae.decode(inputs["z"], tiling)}
    assert found.keys() == outputs.keys()
    for name, expected in outputs.items():
        assert found[name].shape == expected.shape
        difference = (found[name] - expected).abs().max().item()
        assert difference <= case.tolerance(run, name), f"{name}: {difference:.2e}"
