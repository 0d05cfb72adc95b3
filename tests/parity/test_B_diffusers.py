"""The DiT gives diffusers' numbers on diffusers' checkpoints: stored ones, and fresh random ones each run."""

from __future__ import annotations

import json
import random
import secrets
from pathlib import Path

import pytest
import torch
from hy_core.dit import DiT, DiTConfig
from hy_core.weights import load_dit, save_safetensors
from hy_core.weights.keys import DIFFUSERS
from parity.cases import Case, cases
from torch import Tensor


def run(dit: DiT, inputs: dict[str, Tensor], replace: bool = False) -> Tensor:
    """Call ours with what diffusers' transformer was called with; `replace` for its token replacement."""
    latents, mask = inputs["hidden_states"], inputs["encoder_attention_mask"].bool()
    frames = latents.shape[2]
    prepared = dit.prepare(
        [states[keep] for states, keep in zip(inputs["encoder_hidden_states"], mask, strict=True)],
        inputs["pooled_projections"],
        torch.arange(frames),
        latents.shape[3:],
        inputs.get("guidance"),
    )
    now = inputs["timestep"].double() / 1000  # fp64, so that times 1000 is the fp32 number of the case again
    time = now[:, None].repeat(1, frames)
    given = None
    if replace:
        time[:, 0] = 0
        given = torch.zeros(time.shape, dtype=torch.bool)
        given[:, 0] = True
    with torch.no_grad():
        return dit(latents, time, prepared, is_fixed=given, text_time=now)


@pytest.mark.parametrize("case,run_name", cases("ABE", config_kind="diffusers_transformer"))
def test_dit(case: Case, run_name: str) -> None:
    dit = load_dit(case.path / "model.safetensors", config=DiTConfig.from_diffusers(case.model_config))
    replace = case.model_config.get("image_condition_type") == "token_replace"
    found, outputs = run(dit, case.inputs(run_name), replace), case.outputs(run_name)
    assert set(outputs) == {"sample"}
    assert (found - outputs["sample"]).abs().max() <= case.tolerance(run_name, "sample")


def fresh(seed: int, kind: str | None = "any"):
    """A random diffusers transformer of random shape, in which every weight counts.

    `kind` is how it takes a picture: None, "token_replace", "latent_concat", or any of them.
    """
    diffusers = pytest.importorskip("diffusers")
    draw = random.Random(seed)
    torch.manual_seed(seed)
    rope = [2 * draw.randint(1, 4) for _ in range(3)]
    kind = draw.choice([None, "token_replace", "latent_concat"]) if kind == "any" else kind
    channels = draw.choice([4, 16])
    config = {
        "in_channels": 2 * channels + 1 if kind == "latent_concat" else channels,
        "out_channels": channels,
        "num_attention_heads": draw.randint(1, 3),
        "attention_head_dim": sum(rope),
        "num_layers": draw.randint(1, 2),
        "num_single_layers": draw.randint(1, 2),
        "num_refiner_layers": draw.randint(1, 2),
        "mlp_ratio": draw.choice([2.0, 4.0]),
        "guidance_embeds": draw.random() < 0.5,
        "text_embed_dim": draw.randint(8, 40),
        "pooled_projection_dim": draw.randint(8, 40),
        "rope_axes_dim": rope,
        "image_condition_type": kind,
    }
    theirs = diffusers.HunyuanVideoTransformer3DModel(**config).eval().requires_grad_(False)
    for parameter in theirs.parameters():
        scale = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.1
        parameter.add_(torch.randn_like(parameter) * scale)
    return theirs, draw


def inputs_for(theirs, draw: random.Random) -> dict[str, Tensor]:
    config = theirs.config
    rows, longest = draw.randint(1, 3), draw.randint(2, 9)
    size = (draw.randint(1, 4), 2 * draw.randint(1, 4), 2 * draw.randint(1, 4))
    lengths = torch.tensor([draw.randint(1, longest) for _ in range(rows)])
    found = {
        "hidden_states": torch.randn(rows, config.in_channels, *size),
        "timestep": torch.rand(rows) * 1000,
        "encoder_hidden_states": torch.randn(rows, longest, config.text_embed_dim),
        "encoder_attention_mask": (torch.arange(longest) < lengths[:, None]).long(),
        "pooled_projections": torch.randn(rows, config.pooled_projection_dim),
    }
    if config.guidance_embeds:
        found["guidance"] = torch.rand(rows) * 10_000
    return found


@pytest.mark.parametrize("kind", [None, "token_replace", "latent_concat"])
def test_fresh_weights_and_shapes(kind: str | None, tmp_path: Path) -> None:
    """New ones each run; the seed in the message makes a failure come again."""
    seed = secrets.randbelow(2**31)
    print(f"seed {seed}")
    theirs, draw = fresh(seed, kind)
    theirs.save_pretrained(tmp_path)
    ours = load_dit(tmp_path)
    inputs = inputs_for(theirs, draw)
    with torch.no_grad():
        expected = theirs(**inputs, return_dict=False)[0]
    found = run(ours, inputs, theirs.config.image_condition_type == "token_replace")
    worst = float((found - expected).abs().max() / expected.abs().max())
    assert worst < 1e-5, f"seed {seed}: {worst:.1e}"


def test_13b_on_the_meta_device() -> None:
    """diffusers' 13B transformer and ours agree on every key and shape after conversion, both ways."""
    diffusers = pytest.importorskip("diffusers")
    with torch.device("meta"):
        theirs = diffusers.HunyuanVideoTransformer3DModel()
        ours = DiT(DiTConfig.from_diffusers(theirs.config))
    expected = {key: tuple(value.shape) for key, value in theirs.state_dict().items()}
    exported = {key: tuple(value.shape) for key, value in DIFFUSERS.export(ours.state_dict(), ours.width)}
    assert exported == expected
    for key, value in ours.state_dict().items():
        source = DIFFUSERS.source(key)
        assert source.shape([expected[part] for part in source.keys]) == tuple(value.shape)
    assert sum(value.numel() for value in ours.parameters()) == 12_821_012_544


def test_our_dit_saved_for_diffusers_is_loaded_by_it(tmp_path: Path) -> None:
    """The table works the other way, too: diffusers itself reads what we export, and gives our numbers."""
    diffusers = pytest.importorskip("diffusers")
    seed = secrets.randbelow(2**31)
    theirs, _ = fresh(seed)
    theirs.save_pretrained(tmp_path / "first")
    ours = load_dit(tmp_path / "first")
    state = dict(DIFFUSERS.export(ours.state_dict(), ours.width))
    save_safetensors(tmp_path / "second" / "diffusion_pytorch_model.safetensors", state, {"format": "pt"})
    (tmp_path / "second" / "config.json").write_text(json.dumps(dict(theirs.config)))
    again = diffusers.HunyuanVideoTransformer3DModel.from_pretrained(tmp_path / "second")
    for key, value in theirs.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), f"seed {seed}: {key}"
