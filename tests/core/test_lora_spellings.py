"""LoRA files of every trainer: which layer a key means, how strongly it counts, and what else it may change."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hy_core.dit import DiT, DiTConfig
from hy_core.errors import HyError, UsageError
from hy_core.lora_option import loras
from hy_core.weights import save_safetensors
from hy_core.weights.lora import merge
from torch import Tensor

CONFIG = DiTConfig(
    width=24, heads=2, depth_double=1, depth_single=1, depth_refiner=1, rope_dims=(4, 4, 4), text_dim=8, pooled_dim=8,
)  # fmt: skip
LAYER = "double_blocks.0.img_attn_qkv"
RANK = 4


@pytest.fixture
def dit() -> DiT:
    torch.manual_seed(0)
    dit = DiT(CONFIG).eval().requires_grad_(False)
    for parameter in dit.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return dit


DOWN, UP = torch.randn(RANK, 24), torch.randn(72, RANK)


def change(
    dit: DiT, path: Path, state: dict[str, Tensor], metadata: dict[str, str] | None = None, scale: float = 1.0
) -> dict[str, Tensor]:
    """What merging a file adds to each parameter."""
    before = {name: value.clone() for name, value in dit.state_dict().items()}
    save_safetensors(path, state, metadata)
    merge(dit, path, scale)
    after = dit.state_dict()
    return {
        name: after[name] - value for name, value in before.items() if not torch.equal(after[name], value)
    }


def only(found: dict[str, Tensor], key: str, expected: Tensor) -> None:
    assert found.keys() == {key}
    torch.testing.assert_close(found[key], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("down", "up"),
    [
        (f"base_model.model.{LAYER}.lora_A.weight", f"base_model.model.{LAYER}.lora_B.weight"),
        (
            f"base_model.model.transformer.{LAYER}.lora_A.weight",
            f"base_model.model.transformer.{LAYER}.lora_B.weight",
        ),
        (f"transformer.{LAYER}.lora_A.style.weight", f"transformer.{LAYER}.lora_B.style.weight"),
        (
            f"module._orig_mod.{LAYER}.lora_A.default.weight",
            f"module._orig_mod.{LAYER}.lora_B.default.weight",
        ),
        (f"{LAYER}.lora.down.weight", f"{LAYER}.lora.up.weight"),
        (f"diffusion_model.{LAYER}.lora_down.weight", f"diffusion_model.{LAYER}.lora_up.weight"),
        (f"{LAYER}.lora_A", f"{LAYER}.lora_B"),
        *(
            (
                f"{prefix}{LAYER.replace('.', '_')}.lora_down.weight",
                f"{prefix}{LAYER.replace('.', '_')}.lora_up.weight",
            )
            for prefix in ("lora_unet_", "lora_transformer_", "lycoris_", "lora_")
        ),
        (
            "lycoris_double_blocks_0_img_attn_qkv.lora_down.weight",
            "lycoris_double_blocks_0_img_attn_qkv.lora_up.weight",
        ),
    ],
)
def test_spellings_of_one_layer(down: str, up: str, dit: DiT, tmp_path: Path) -> None:
    only(change(dit, tmp_path / "x.safetensors", {down: DOWN, up: UP}), f"{LAYER}.weight", UP @ DOWN)


@pytest.mark.parametrize(
    "stem",
    [
        "transformer.transformer_blocks.0.attn.to_k",
        "lora_transformer_transformer_blocks_0_attn_to_k",
        "lycoris_transformer_blocks_0_attn_to_k",
        "transformer.transformer_blocks.0.attn.processor.to_k",
    ],
)
def test_a_part_of_a_fused_layer(stem: str, dit: DiT, tmp_path: Path) -> None:
    separator = "_lora." if "processor" in stem else ".lora_"
    state = {f"{stem}{separator}down.weight": DOWN, f"{stem}{separator}up.weight": UP[:24]}
    expected = torch.zeros(72, 24)
    expected[24:48] = UP[:24] @ DOWN
    only(change(dit, tmp_path / "x.safetensors", state), f"{LAYER}.weight", expected)


PEFT = {f"transformer.{LAYER}.lora_A.weight": DOWN, f"transformer.{LAYER}.lora_B.weight": UP}


@pytest.mark.parametrize(
    ("metadata", "factor"),
    [
        ({"lora_adapter_metadata": json.dumps({"transformer.r": 4, "transformer.lora_alpha": 16})}, 4),
        ({"lora_adapter_metadata": json.dumps({"r": 4, "lora_alpha": 2})}, 0.5),
        ({"lora_adapter_metadata": json.dumps({"transformer": {"r": 4, "lora_alpha": 2}})}, 0.5),
        (
            {
                "lora_adapter_metadata": json.dumps(
                    {"text_encoder.lora_alpha": 99, "transformer.lora_alpha": 8}
                )
            },
            2,
        ),
        ({"transformer.lora_alpha": "16", "transformer.r": "4"}, 4),
        ({"lora_alpha": "1", "rank": "4"}, 0.25),
        ({"alpha": "8", "r": "4"}, 2),
        ({"alpha": "8"}, 1),
        ({"ss_network_alpha": "8", "ss_network_dim": "4", "modelspec.title": "x"}, 1),
        ({"transformer.lora_alpha": "16", "transformer.use_rslora": "true"}, 8),
        ({"lora_adapter_metadata": json.dumps({"lora_alpha": 16, "use_rslora": True})}, 8),
        ({"lora_adapter_metadata": json.dumps({"lora_alpha": 4, "alpha_pattern": {"img_attn_qkv": 12}})}, 3),
        ({"lora_adapter_metadata": json.dumps({"lora_alpha": 4, "alpha_pattern": {LAYER: 12}})}, 3),
        (
            {
                "lora_adapter_metadata": json.dumps(
                    {"lora_alpha": 4, "alpha_pattern": {r"blocks\.\d+\.img_.*": 12}}
                )
            },
            1,
        ),
        (
            {
                "lora_adapter_metadata": json.dumps(
                    {"lora_alpha": 4, "alpha_pattern": {r"double_blocks\.\d+\.img_.*": 12}}
                )
            },
            3,
        ),
        ({"lora_adapter_metadata": json.dumps({"lora_alpha": 8, "alpha_pattern": {"txt_attn_qkv": 1}})}, 2),
    ],
)
def test_strength_in_the_header(metadata: dict[str, str], factor: float, dit: DiT, tmp_path: Path) -> None:
    only(change(dit, tmp_path / "x.safetensors", PEFT, metadata), f"{LAYER}.weight", factor * UP @ DOWN)


@pytest.mark.parametrize(
    ("config", "factor"),
    [
        ({"peft_type": "LORA", "r": 4, "lora_alpha": 16}, 4),
        ({"r": 8, "rank_pattern": {LAYER: 4}, "lora_alpha": 16}, 4),
        ({"r": 4, "lora_alpha": 16, "use_rslora": True}, 8),
        ({"r": 4, "lora_alpha": 16, "alpha_pattern": {"img_attn_qkv": 2}}, 0.5),
    ],
)
def test_strength_in_adapter_config(
    config: dict[str, object], factor: float, dit: DiT, tmp_path: Path
) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    found = change(dit, tmp_path / "adapter_model.safetensors", PEFT, scale=0.5)
    only(found, f"{LAYER}.weight", 0.5 * factor * UP @ DOWN)


def test_the_config_beside_is_for_peft_files_without_a_strength_of_their_own(
    dit: DiT, tmp_path: Path
) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 16}))
    kohya = {f"{LAYER}.lora_down.weight": DOWN, f"{LAYER}.lora_up.weight": UP}
    only(change(dit, tmp_path / "kohya.safetensors", kohya), f"{LAYER}.weight", UP @ DOWN)
    only(change(dit, tmp_path / "x.safetensors", PEFT, {"lora_alpha": "8"}), f"{LAYER}.weight", 2 * UP @ DOWN)


def test_a_layers_own_alpha_goes_first(dit: DiT, tmp_path: Path) -> None:
    state = PEFT | {f"transformer.{LAYER}.alpha": torch.tensor(8)}
    only(
        change(dit, tmp_path / "x.safetensors", state, {"lora_alpha": "1"}), f"{LAYER}.weight", 2 * UP @ DOWN
    )


def test_strength_as_plain_values_of_the_file(dit: DiT, tmp_path: Path) -> None:
    state = PEFT | {"lora_alpha": torch.tensor(16), "rank": torch.tensor(4)}
    only(change(dit, tmp_path / "x.safetensors", state), f"{LAYER}.weight", 4 * UP @ DOWN)
    before = dit.get_submodule(LAYER).weight.clone()
    torch.save({"state_dict": PEFT, "lora_alpha": 8, "rank": 4}, tmp_path / "x.pt")
    merge(dit, tmp_path / "x.pt")
    torch.testing.assert_close(dit.get_submodule(LAYER).weight - before, 2 * UP @ DOWN, rtol=1e-4, atol=1e-5)


def test_biases_and_norms(dit: DiT, tmp_path: Path) -> None:
    bias, norm = torch.randn(72), torch.randn(12)
    pair = {f"{LAYER}.lora_A.weight": DOWN, f"{LAYER}.lora_B.weight": UP, f"{LAYER}.alpha": torch.tensor(2.0)}
    found = change(dit, tmp_path / "a.safetensors", pair | {f"{LAYER}.lora_B.bias": bias}, scale=0.5)
    torch.testing.assert_close(found[f"{LAYER}.bias"], 0.25 * bias)  # counts as the pair does
    found = change(dit, tmp_path / "b.safetensors", pair | {f"{LAYER}.diff_b": bias}, scale=0.5)
    torch.testing.assert_close(found[f"{LAYER}.bias"], 0.5 * bias)
    comfy = {"diffusion_model.double_blocks.0.img_attn.norm.query_norm.diff": norm}
    found = change(dit, tmp_path / "c.safetensors", comfy, scale=2)
    only(found, "double_blocks.0.img_attn_q_norm.weight", 2 * norm)
    whole = torch.randn(72, 24)
    only(change(dit, tmp_path / "d.safetensors", {f"{LAYER}.diff": whole}), f"{LAYER}.weight", whole)
    old = dit.get_submodule(LAYER).bias.clone()
    found = change(
        dit, tmp_path / "e.safetensors", pair | {f"base_model.model.{LAYER}.base_layer.bias": bias}, scale=0.5
    )
    torch.testing.assert_close(found[f"{LAYER}.bias"], 0.5 * (bias - old))
    theirs = {
        "transformer.norm_out.linear.diff_b": torch.arange(48.0)
    }  # diffusers swaps the halves of this layer
    found = change(dit, tmp_path / "f.safetensors", theirs)
    only(found, "final_layer.adaLN_modulation.1.bias", torch.arange(48.0).roll(24))


def reference_dora(weight: Tensor, magnitude: Tensor, axis: int) -> Tensor:
    moved = weight + UP @ DOWN
    return magnitude * moved / moved.pow(2).sum(axis, keepdim=True).sqrt()


@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("style", ["peft", "kohya-rows", "kohya-columns"])
def test_dora(style: str, scale: float, dit: DiT, tmp_path: Path) -> None:
    weight = dit.get_submodule(LAYER).weight.clone()
    rows, columns = torch.rand(72, 1) + 0.5, torch.rand(1, 24) + 0.5
    extra, expected = {
        "peft": ({f"{LAYER}.lora_magnitude_vector.weight": rows[:, 0]}, reference_dora(weight, rows, 1)),
        "kohya-rows": ({f"{LAYER}.dora_scale": rows}, reference_dora(weight, rows, 1)),
        "kohya-columns": ({f"{LAYER}.dora_scale": columns}, reference_dora(weight, columns, 0)),
    }[style]
    state = {f"{LAYER}.lora_down.weight": DOWN, f"{LAYER}.lora_up.weight": UP} | extra
    found = change(dit, tmp_path / "x.safetensors", state, scale=scale)
    only(found, f"{LAYER}.weight", scale * (expected - weight))


def test_loha_and_lokr(dit: DiT, tmp_path: Path) -> None:
    a1, b1, a2, b2 = torch.randn(72, 2), torch.randn(2, 24), torch.randn(72, 2), torch.randn(2, 24)
    name = f"lora_unet_{LAYER.replace('.', '_')}"
    loha = {
        f"{name}.hada_w1_a": a1,
        f"{name}.hada_w1_b": b1,
        f"{name}.hada_w2_a": a2,
        f"{name}.hada_w2_b": b2,
    }
    found = change(dit, tmp_path / "loha.safetensors", loha | {f"{name}.alpha": torch.tensor(1.0)})
    only(found, f"{LAYER}.weight", 0.5 * (a1 @ b1) * (a2 @ b2))
    one, two_a, two_b = torch.randn(6, 4), torch.randn(12, 3), torch.randn(3, 6)
    lokr = {f"{name}.lokr_w1": one, f"{name}.lokr_w2_a": two_a, f"{name}.lokr_w2_b": two_b}
    found = change(dit, tmp_path / "lokr.safetensors", lokr | {f"{name}.alpha": torch.tensor(6.0)})
    expected = 2 * torch.einsum("ab,cd->acbd", one, two_a @ two_b).reshape(72, 24)
    only(found, f"{LAYER}.weight", expected)
    full = {f"{name}.lokr_w1": one, f"{name}.lokr_w2": two_a @ two_b, f"{name}.alpha": torch.tensor(1e9)}
    found = change(dit, tmp_path / "full.safetensors", full)  # nothing is decomposed, so alpha means nothing
    only(found, f"{LAYER}.weight", expected / 2)


def test_a_text_encoders_part_is_left_out_with_a_warning(dit: DiT, tmp_path: Path) -> None:
    text = {
        "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": DOWN,
        "text_encoder.x.lora_A.weight": UP,
    }
    with pytest.warns(UserWarning, match="2 tensors for a text encoder are left out"):
        only(change(dit, tmp_path / "x.safetensors", PEFT | text), f"{LAYER}.weight", UP @ DOWN)
    with pytest.raises(HyError, match="adapts only a text encoder"):
        change(dit, tmp_path / "y.safetensors", text)


def pair(change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> dict[str, Tensor]:
    return change({f"{LAYER}.lora_A.weight": DOWN, f"{LAYER}.lora_B.weight": UP})


@pytest.mark.parametrize(
    ("state", "metadata", "said"),
    [
        (
            {f"{LAYER}.lora_A.weight": torch.zeros(0, 24), f"{LAYER}.lora_B.weight": torch.zeros(72, 0)},
            {},
            "rank 0",
        ),
        (PEFT | {f"{LAYER}.oft_blocks": DOWN}, {}, "holds OFT"),
        (PEFT | {f"{LAYER}.hada_t1": DOWN}, {}, "LoHa with a Tucker"),
        (
            PEFT | {f"{LAYER}.lora_A.other.weight": DOWN, f"{LAYER}.lora_A.one.weight": DOWN},
            {},
            "holds 2 adapters",
        ),
        (PEFT | {f"{LAYER}.lora_A.weight": DOWN, f"{LAYER}.lora_B.weight": UP}, {}, "under two names"),
        (PEFT | {f"transformer.{LAYER}.diff_b": torch.ones(5)}, {}, r"adds \[5\] to a bias of \[72\]"),
        (
            PEFT | {"transformer.double_blocks.0.img_attn_q_norm.diff_b": torch.ones(12)},
            {},
            "this layer has none",
        ),
        (PEFT | {f"transformer.{LAYER}.lora_magnitude_vector": torch.ones(5)}, {}, "5 magnitudes"),
        ({f"{LAYER}.lokr_w1": torch.ones(5, 5), f"{LAYER}.lokr_w2": torch.ones(5, 5)}, {}, "adds 25x25"),
        ({f"{LAYER}.lokr_w1": torch.ones(5, 5)}, {}, "only half"),
        ({f"{LAYER}.hada_w1_a": UP, f"{LAYER}.hada_w1_b": DOWN}, {}, "only half"),
        ({f"{LAYER}.lora_A.weight": DOWN.int(), f"{LAYER}.lora_B.weight": UP}, {}, "is int32"),
        (PEFT | {f"transformer.{LAYER}.alpha": torch.tensor(torch.inf)}, {}, "aren't numbers"),
        (PEFT | {f"transformer.{LAYER}.alpha": torch.tensor(3e38)}, {}, "infinite"),
        (PEFT, {"lora_alpha": "much"}, "lora_alpha is 'much'"),
        (PEFT, {"lora_adapter_metadata": "[1]"}, "no JSON object"),
        (PEFT, {"lora_adapter_metadata": json.dumps({"alpha_pattern": {"(a*)*b": 1}})}, "isn't supported"),
        (PEFT, {"lora_adapter_metadata": json.dumps({"alpha_pattern": [1]})}, "alpha_pattern is"),
        ({"x" * 5000: DOWN}, {}, "no LoRA"),
    ],
)
def test_what_is_not_right_is_one_line(
    state: dict[str, Tensor], metadata: dict[str, str], said: str, dit: DiT, tmp_path: Path
) -> None:
    with pytest.raises(HyError, match=said) as caught:
        change(dit, tmp_path / "x.safetensors", state, metadata)
    assert "\n" not in f"{caught.value.message}{caught.value.hint}" and len(caught.value.message) < 600


def test_names_of_files_with_commas_and_equals_signs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a=b.safetensors", "c,d.safetensors", "e=0.5", "plain.safetensors", "x=1,y=2.safetensors"):
        Path(name).touch()
    for text, expected in {
        "a=b.safetensors": [("a=b.safetensors", 1.0)],
        "a=b.safetensors=0.5": [("a=b.safetensors", 0.5)],
        "c,d.safetensors": [("c,d.safetensors", 1.0)],
        "c,d.safetensors=2, plain.safetensors": [("c,d.safetensors", 2.0), ("plain.safetensors", 1.0)],
        "e=0.5": [("e=0.5", 1.0)],
        "x=1,y=2.safetensors=-1,plain.safetensors=3": [
            ("x=1,y=2.safetensors", -1.0),
            ("plain.safetensors", 3.0),
        ],
        "gone.safetensors,plain.safetensors": [("gone.safetensors", 1.0), ("plain.safetensors", 1.0)],
    }.items():
        assert [(str(path), scale) for path, scale in loras(text)] == expected, text
    for wrong in ("plain.safetensors=nan", "plain.safetensors=1e999", "a=b", ",", "plain.safetensors=\0"):
        with pytest.raises(UsageError):
            loras(wrong)
