"""Key tables: complete, one to one, and undone by going the other way; the names of the family never change."""

from __future__ import annotations

import hashlib

import pytest
import torch
from hy_core.dit import DiT, DiTConfig
from hy_core.errors import HyError, UsageError
from hy_core.weights.detect import detect, dit_config
from hy_core.weights.keys import COMFYUI, DIFFUSERS, OFFICIAL, Table
from hypothesis import given, settings
from hypothesis import strategies as st

#: Every named size: its number of tensors and parameters, and a hash of all its keys and shapes.
FROZEN = {
    "pocket": (118, 4_056_832, "f127827c415c7576"),
    "HYVideo-T/2": (852, 12_810_782_784, "fb871eaf25ddc122"),
    "HYVideo-T/2-cfgdistill": (856, 12_821_012_544, "a5d19c631944e2fb"),
    "HYVideo-S/2": (292, 103_854_592, "62d9b33cbbdf524b"),
}

#: Spot checks against the published checkpoint's own names.
SAMPLE = {
    "img_in.proj.weight": (3072, 16, 1, 2, 2),
    "txt_in.input_embedder.weight": (3072, 4096),
    "txt_in.individual_token_refiner.blocks.1.self_attn_qkv.bias": (9216,),
    "txt_in.individual_token_refiner.blocks.0.adaLN_modulation.1.weight": (6144, 3072),
    "txt_in.c_embedder.linear_1.weight": (3072, 4096),
    "time_in.mlp.0.weight": (3072, 256),
    "vector_in.in_layer.weight": (3072, 768),
    "guidance_in.mlp.2.bias": (3072,),
    "double_blocks.19.img_mod.linear.weight": (18432, 3072),
    "double_blocks.0.txt_attn_qkv.weight": (9216, 3072),
    "double_blocks.7.img_attn_k_norm.weight": (128,),
    "double_blocks.7.txt_mlp.fc1.weight": (12288, 3072),
    "single_blocks.39.linear1.weight": (21504, 3072),
    "single_blocks.0.linear2.weight": (3072, 15360),
    "single_blocks.0.modulation.linear.bias": (9216,),
    "final_layer.linear.weight": (64, 3072),
    "final_layer.adaLN_modulation.1.weight": (6144, 3072),
}

configs = st.builds(
    lambda head, heads, double, single, guidance, ratio: DiTConfig(
        width=sum(head) * heads, heads=heads, depth_double=double, depth_single=single, guidance=guidance,
        rope_dims=head, mlp_ratio=ratio, text_dim=10, pooled_dim=6, in_channels=4, out_channels=3,
    ),
    st.sampled_from([(2, 2, 4), (4, 6, 6)]),
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(1, 2),
    st.booleans(),
    st.sampled_from([2.0, 4.0]),
)  # fmt: skip


def meta(config: DiTConfig) -> DiT:
    with torch.device("meta"):
        return DiT(config)


def shapes(state) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state.items()}


@pytest.mark.parametrize("name", DiTConfig.named)
def test_keys_of_named_sizes_are_frozen(name: str) -> None:
    """Checkpoints that people have must load tomorrow: a change here breaks all of them."""
    found = shapes(meta(DiTConfig.named[name]).state_dict())
    listed = "\n".join(f"{key} {list(shape)}" for key, shape in sorted(found.items()))
    numbers = sum(torch.Size(shape).numel() for shape in found.values())
    assert (len(found), numbers, hashlib.sha256(listed.encode()).hexdigest()[:16]) == FROZEN[name]


def test_official_names_and_shapes() -> None:
    found = shapes(meta(DiTConfig.named["HYVideo-T/2-cfgdistill"]).state_dict())
    assert {key: found.get(key) for key in SAMPLE} == SAMPLE


@pytest.mark.parametrize("table", [OFFICIAL, DIFFUSERS, COMFYUI], ids=lambda table: table.name)
@settings(max_examples=8, deadline=None)
@given(config=configs)
def test_round_trip(table: Table, config: DiTConfig) -> None:
    """Ours to theirs and back gives every tensor bit for bit; none is lost, and no two share a name."""
    torch.manual_seed(0)
    state = {key: torch.randn(value.shape) for key, value in DiT(config).state_dict().items()}
    pairs = list(table.export(state, config.width))
    theirs = dict(pairs)
    assert len(theirs) == len(pairs)
    assert sum(value.numel() for value in theirs.values()) == sum(value.numel() for value in state.values())
    for key, value in state.items():
        source = table.source(key)
        assert torch.equal(source.build([theirs.pop(part) for part in source.keys]), value), key
    assert not theirs


@pytest.mark.parametrize("table", [OFFICIAL, DIFFUSERS, COMFYUI], ids=lambda table: table.name)
@pytest.mark.parametrize("name", DiTConfig.named)
def test_format_and_size_are_detected_from_keys_and_shapes(table: Table, name: str) -> None:
    config = DiTConfig.named[name]
    theirs = shapes(dict(table.export(meta(config).state_dict(), config.width)))
    assert detect(theirs).table is table
    assert dit_config(theirs, table) == config


@pytest.mark.parametrize("prefix", ["model.model.", "diffusion_model.", "model.diffusion_model."])
def test_prefix_of_single_files_is_found(prefix: str) -> None:
    config = DiTConfig.named["pocket"]
    theirs = dict(COMFYUI.export(meta(config).state_dict(), config.width))
    theirs = {prefix + key: value for key, value in theirs.items()} | {
        "vae.decoder.conv_in.conv.weight": None
    }
    form = detect({key: () for key in theirs})
    assert form.prefix == prefix and "vae.decoder.conv_in.conv.weight" not in form.strip(theirs)


def test_trap_03_final_layer_halves() -> None:
    """The last modulation is (shift, scale) officially and (scale, shift) in diffusers; the refiner alike in both."""
    source = DIFFUSERS.source("final_layer.adaLN_modulation.1.bias")
    assert source.keys == ("norm_out.linear.bias",)
    scale, shift = torch.tensor([1.0, 2.0]), torch.tensor([-1.0, -2.0])
    assert torch.equal(source.build([torch.cat((scale, shift))]), torch.cat((shift, scale)))
    refiner = DIFFUSERS.source("txt_in.individual_token_refiner.blocks.0.adaLN_modulation.1.bias")
    assert not refiner.swap


def test_33_input_channels_are_those_of_image_to_video() -> None:
    config = DiTConfig(in_channels=33, guidance=False)
    assert dit_config(shapes(meta(config).state_dict())).in_channels == 33


@pytest.mark.parametrize(
    "keys,looks",
    [
        (["encoder.down_blocks.0.resnets.0.norm1.weight"], "a VAE"),
        (["transformer.double_blocks.0.img_attn_qkv.lora_A.weight"], "a LoRA"),
        (["model.layers.0.self_attn.q_proj.weight"], "a language model"),
        (["fc.weight"], "fc.weight"),
        ([], "nothing"),
    ],
)
def test_other_weights_are_called_what_they_are(keys: list[str], looks: str) -> None:
    with pytest.raises(HyError) as caught:
        detect({key: (1,) for key in keys})
    assert looks in str(caught.value) and "\n" not in str(caught.value)


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(UsageError, match="5 heads"):
        DiTConfig(heads=5)
    with pytest.raises(UsageError, match="128 channels"):
        DiTConfig(rope_dims=(16, 56, 48))


def test_config_survives_json() -> None:
    for config in DiTConfig.named.values():
        assert DiTConfig.from_json(config.to_json()) == config
        assert DiTConfig.from_dict(config.to_json()) == config
    with pytest.raises(UsageError, match="'layers'"):
        DiTConfig.from_json({"layers": 3})
