"""8-bit weights load with their scales, wherever those are; formats that aren't supported are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hy_core.dit import DiT, DiTConfig
from hy_core.errors import HyError, MissingError
from hy_core.weights import load_dit, save_safetensors
from hy_core.weights.keys import COMFYUI, DIFFUSERS
from torch import Tensor

CONFIG = DiTConfig(
    in_channels=4, out_channels=4, width=24, heads=2, depth_double=1, depth_single=1, depth_refiner=1,
    rope_dims=(4, 4, 4), text_dim=10, pooled_dim=6, guidance=False,
)  # fmt: skip
E4M3 = torch.float8_e4m3fn
BLOCK_LAYERS = ("double_blocks.0.img_attn_qkv", "single_blocks.0.linear1", "single_blocks.0.linear2")


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    dit = DiT(CONFIG)
    for parameter in dit.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return {key: value.detach().clone() for key, value in dit.state_dict().items()}


def load(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    save_safetensors(path, state, {"config": json.dumps(CONFIG.to_json())})
    return load_dit(path, dtype=torch.float32).state_dict()


def quantized(weight: Tensor, scale: Tensor) -> Tensor:
    return (weight / scale).clamp(-448, 448).to(E4M3)


@pytest.mark.parametrize("name", ["scale_weight", "weight_scale", "weight_scale_inv"])
@pytest.mark.parametrize("granularity", ["tensor", "one", "row", "block"])
def test_scales_inside_the_file(
    name: str, granularity: str, state: dict[str, Tensor], tmp_path: Path
) -> None:
    theirs, expected = dict(COMFYUI.export(state, CONFIG.width)), {}
    for layer in BLOCK_LAYERS:
        (key,) = COMFYUI.source(f"{layer}.weight").keys  # type: ignore[union-attr]
        weight = theirs[key]
        top = weight.abs()
        scale = {
            "tensor": lambda top=top: top.max() / 448,
            "one": lambda top=top: top.max().reshape(1) / 448,
            "row": lambda top=top: top.amax(1, keepdim=True) / 448,
            "block": lambda top=top: top.reshape(4, len(top) // 4, -1, 12).amax((1, 3)) / 448,
        }[granularity]()
        full = scale
        if granularity == "block":
            full = scale.repeat_interleave(len(weight) // 4, 0).repeat_interleave(12, 1)
        theirs[key] = quantized(weight, full)
        stem = key.removesuffix(".weight")
        theirs |= {f"{stem}.{name}": scale, f"{stem}.scale_input": torch.ones(())}
        expected[f"{layer}.weight"] = theirs[key].float() * full
    theirs["scaled_fp8"] = torch.zeros(2, dtype=E4M3)
    found = load(
        {f"model.diffusion_model.{key}": value for key, value in theirs.items()}, tmp_path / "x.safetensors"
    )
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=0, atol=0)
        torch.testing.assert_close(found[key], state[key], rtol=0.07, atol=0.01)


def test_parts_of_a_fused_layer_have_scales_of_their_own(state: dict[str, Tensor], tmp_path: Path) -> None:
    theirs = {key: value.clone() for key, value in DIFFUSERS.export(state, CONFIG.width)}
    expected = []
    for number, x in enumerate("qkv"):
        key = f"transformer_blocks.0.attn.to_{x}.weight"
        scale = torch.tensor(0.5 + number)
        theirs |= {key: theirs[key].to(E4M3), key.replace("weight", "weight_scale"): scale}
        expected.append(theirs[key].float() * scale)
    found = load(theirs, tmp_path / "x.safetensors")
    assert torch.equal(found["double_blocks.0.img_attn_qkv.weight"], torch.cat(expected))


def test_a_plain_cast_has_no_scales(state: dict[str, Tensor], tmp_path: Path) -> None:
    cast = {key: value.to(E4M3) for key, value in state.items()}
    found = load(cast, tmp_path / "cast.safetensors")
    assert all(torch.equal(found[key], cast[key].float()) for key in state)
    assert load_dit(tmp_path / "cast.safetensors").dtype == torch.bfloat16


def test_scaled_numbers_without_scales_are_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    """Loaded as they are they would make noise, not an error; that they were scaled shows in the largest one."""
    weight = state["single_blocks.0.linear1.weight"]
    alone = state | {"single_blocks.0.linear1.weight": quantized(weight, weight.abs().max() / 448)}
    with pytest.raises(MissingError, match="without their scales"):
        load(alone, tmp_path / "x.safetensors")


def test_int8_with_scales(state: dict[str, Tensor], tmp_path: Path) -> None:
    one, other = "single_blocks.0.linear1", "single_blocks.0.linear2"
    top = state[f"{one}.weight"].abs().amax(1)
    numbers = (state[f"{one}.weight"] / top[:, None] * 127).round().to(torch.int8)
    plain = (state[f"{other}.weight"] * 100).round().to(torch.int8)
    stored = state | {
        f"{one}.weight": numbers, f"{one}.SCB": top, f"{one}.weight_format": torch.zeros((), dtype=torch.uint8),
        f"{other}.weight": plain, f"{other}.weight_scale": torch.tensor(0.01),
    }  # fmt: skip
    found = load(stored, tmp_path / "x.safetensors")
    torch.testing.assert_close(found[f"{one}.weight"], numbers * (top[:, None] / 127))
    torch.testing.assert_close(found[f"{other}.weight"], plain * 0.01)
    with pytest.raises(MissingError, match="8-bit integers"):
        load(state | {f"{one}.weight": numbers}, tmp_path / "bare.safetensors")


LAYER = "double_blocks.0.img_attn_qkv"
PACKED = torch.zeros(864, 1, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (
            {f"{LAYER}.weight": PACKED, f"{LAYER}.weight.quant_state.bitsandbytes__nf4": PACKED},
            "bitsandbytes (NF4)",
        ),
        (
            {f"{LAYER}.weight": PACKED, f"{LAYER}.weight.absmax": torch.ones(4)},
            "4-bit weights of bitsandbytes",
        ),
        ({f"{LAYER}.qweight": PACKED.int(), f"{LAYER}.qzeros": PACKED.int()}, "GPTQ or AWQ"),
        ({f"{LAYER}.weight_scale_2": torch.ones(1)}, "NVFP4"),
        ({f"{LAYER}.weight": PACKED}, "4-bit weights"),
        ({f"{LAYER}.weight": torch.zeros(72, 24, dtype=torch.int32)}, "integer weights"),
        ({f"{LAYER}.weight": torch.zeros(72, 24).to(E4M3), f"{LAYER}.weight_scale": PACKED}, "MX formats"),
        (
            {f"{LAYER}.weight": torch.zeros(72, 24).to(E4M3), f"{LAYER}.weight_scale": torch.ones(5)},
            "doesn't fit",
        ),
        (
            {
                f"{LAYER}.weight": torch.zeros(72, 24).to(E4M3),
                f"{LAYER}.weight_scale": torch.tensor(torch.nan),
            },
            "number",
        ),
        (
            {
                f"{LAYER}.comfy_quant": torch.tensor(list(b'{"format": "mxfp8"}'), dtype=torch.uint8),
                f"{LAYER}.weight": torch.zeros(72, 24).to(E4M3),
            },
            "'mxfp8'",
        ),
        ({f"{LAYER}.weight": torch.zeros(72, 24, dtype=torch.complex64)}, "complex64"),
        ({f"{LAYER}.bias": torch.zeros(72, dtype=torch.int64)}, "as int64"),
    ],
)
def test_other_formats_are_refused_by_their_name(
    extra: dict[str, Tensor], said: str, state: dict[str, Tensor], tmp_path: Path
) -> None:
    with pytest.raises(HyError) as caught:
        load(state | extra, tmp_path / "x.safetensors")
    assert said in caught.value.message and "\n" not in f"{caught.value.message}{caught.value.hint}"
