"""The DiT gives the original package's numbers, in fp32, on its own checkpoints' keys."""

from __future__ import annotations

import pytest
import torch
from hy_core.dit import DiT, DiTConfig
from parity.cases import Case, cases


def run_case(dit: DiT, inputs: dict[str, torch.Tensor], given: bool = False) -> torch.Tensor:
    """Call the DiT with the tensors that the original transformer was called with."""
    latents, mask = inputs["x"], inputs["text_mask"].bool()
    rows, frames = latents.shape[0], latents.shape[2]
    prepared = dit.prepare(
        [states[keep] for states, keep in zip(inputs["text_states"], mask, strict=True)],
        inputs["text_states_2"],
        torch.arange(frames),
        latents.shape[3:],
        inputs.get("guidance"),
    )
    now = inputs["t"].double() / 1000  # fp64, so that times 1000 is the fp32 number of the case again
    time = now[:, None].repeat(1, frames)
    held = None
    if given:
        held = torch.zeros(rows, frames, dtype=torch.bool)
        held[:, 0] = True
        time[:, 0] = 0
    with torch.no_grad():
        return dit(latents, time, prepared, given=held, now=now if given else None)


@pytest.mark.parametrize("case,run", cases("A", config_kind="dit"))
def test_dit(case: Case, run: str) -> None:
    dit = DiT(DiTConfig.from_official(case.model_config))
    dit.load_state_dict(case.weights(), strict=True)
    inputs, outputs = case.inputs(run), case.outputs(run)
    assert (run_case(dit, inputs) - outputs["x"]).abs().max() <= case.tolerance(run, "x")


@pytest.mark.parametrize("case,run", cases("E", config_kind="i2v_dit"))
def test_given_first_frame(case: Case, run: str) -> None:
    """Image to video by token replacement is `given` frames; by channels it is a wider first layer."""
    dit = DiT(DiTConfig.from_official(case.model_config))
    dit.load_state_dict(case.weights(), strict=True)
    replace = case.model_config["i2v_condition_type"] == "token_replace"
    ours = run_case(dit, case.inputs(run), given=replace)
    assert (ours - case.outputs(run)["x"]).abs().max() <= case.tolerance(run, "x")
