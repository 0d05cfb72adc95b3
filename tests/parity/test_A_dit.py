"""The DiT gives the original package's numbers, in fp32, on its own checkpoints' keys."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hy_core.dit import DiT, DiTConfig
from hy_core.dit.rope import table
from parity.cases import Case, cases
from torch import Tensor

ROPE_TOLERANCE = 2e-5  # of the cases of rotary tables


def run_case(dit: DiT, inputs: dict[str, Tensor], given: bool = False) -> Tensor:
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
    prepared.layout.rope = turns(dit.config, prepared.layout.rope, inputs, (frames, *prepared.grid))
    now = inputs["t"].double() / 1000  # fp64, so that times 1000 is the fp32 number of the case again
    time = now[:, None].repeat(1, frames)
    held = None
    if given:
        held = torch.zeros(rows, frames, dtype=torch.bool)
        held[:, 0] = True
        time[:, 0] = 0
    with torch.no_grad():
        return dit(latents, time, prepared, is_fixed=held, text_time=now if given else None)


def turns(config: DiTConfig, ours: Tensor, inputs: dict[str, Tensor], sizes: tuple[int, int, int]) -> Tensor:
    """The rotary positions of a run: our own, which must be the case's if it has those of a plain grid.

    A case may have others, of a long video or of another grid: they are taken as they are given.
    """
    if "freqs_cos" not in inputs:
        return ours
    theirs = torch.complex(inputs["freqs_cos"][:, ::2], inputs["freqs_sin"][:, ::2])
    places = torch.cartesian_prod(*(torch.arange(size).float() for size in sizes)).unbind(1)
    speeds = [config.rope_theta ** (-torch.arange(0, dim, 2) / dim) for dim in config.rope_dims]
    angles = torch.cat([torch.outer(*pair) for pair in zip(places, speeds, strict=True)], 1)
    if not torch.allclose(theirs, torch.polar(torch.ones_like(angles), angles), rtol=0, atol=1e-4):
        return theirs
    torch.testing.assert_close(ours, theirs, rtol=0, atol=ROPE_TOLERANCE)
    return ours


def compare(case: Case, run: str) -> None:
    """The output, and what the named submodules gave on the way."""
    dit = DiT(DiTConfig.from_official(case.model_config))
    dit.load_state_dict(case.weights(), strict=True)
    inputs, outputs, mids = case.inputs(run), case.outputs(run), case.mids(run)
    seen: dict[str, Any] = {}
    for name, module in dit.named_modules():
        module.register_forward_hook(lambda _, args, out, name=name: seen.update({name: out}))
    replace = case.model_config.get("i2v_condition_type") == "token_replace"
    found = {"x": run_case(dit, inputs, given=replace)}
    assert set(found) == set(outputs)
    tolerance = case.tolerance(run, "x")
    assert (found["x"] - outputs["x"]).abs().max() <= tolerance
    for name, theirs in mids.items():
        for ours, expected in pairs(seen, name, theirs, inputs["text_mask"].bool()):
            assert ours.shape == expected.shape, name
            assert (ours - expected).abs().max() <= tolerance * max(1, expected.abs().max()), name


def pairs(seen: dict[str, Any], name: str, theirs: Tensor, mask: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Ours and theirs of a submodule, or of one of several that it returns (`double_blocks.0.1`).

    Our video tokens are [B,F,S,D] and theirs [B,N,D]; our text is packed [T,D], theirs padded [B,L,D].
    """
    ours = seen[name] if name in seen else seen[name.rpartition(".")[0]][int(name.rpartition(".")[2])]
    if isinstance(ours, tuple):  # of a block that has video and text in one
        video, text = ours[0].flatten(1, 2), ours[1]
        return [(video, theirs[:, : video.shape[1]]), (text, theirs[:, video.shape[1] :][mask])]
    if ours.dim() == 4:
        return [(ours.flatten(1, 2), theirs)]
    return [(ours, theirs[mask] if theirs.dim() == 3 else theirs)]


@pytest.mark.parametrize("case,run", cases("AE", config_kind="dit"))
def test_dit(case: Case, run: str) -> None:
    compare(case, run)


@pytest.mark.parametrize("case,run", cases("AE", config_kind="i2v_dit"))
def test_given_first_frame(case: Case, run: str) -> None:
    """Image to video by token replacement is `given` frames; by channels it is a wider first layer."""
    compare(case, run)


def test_positions_of_a_plain_grid_are_checked_and_others_taken() -> None:
    config, sizes = DiTConfig(width=24, heads=1, rope_dims=(4, 10, 10)), (2, 3, 2)
    ours = table([torch.arange(size) for size in sizes], config.rope_dims, config.rope_theta)

    def given(turned: Tensor) -> dict[str, Tensor]:
        pairs = {"freqs_cos": turned.real, "freqs_sin": turned.imag}
        return {name: part.repeat_interleave(2, 1) for name, part in pairs.items()}

    assert turns(config, ours, given(ours), sizes) is ours
    assert turns(config, ours, {}, sizes) is ours
    other = table([torch.arange(size) * 2 for size in sizes], config.rope_dims, config.rope_theta)
    assert torch.equal(turns(config, ours, given(other), sizes), other)
    with pytest.raises(AssertionError):
        turns(config, ours + 1e-4, given(ours), sizes)
