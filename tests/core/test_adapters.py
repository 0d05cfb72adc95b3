"""Adapters: the identity at first, live as they are merged, in files that each program reads."""

from __future__ import annotations

import pytest
import torch
from hy_core import hookimpl
from hy_core.adapters import AdapterConfig, LoRA, attach, detach, find_kind, parts_of, select_layers
from hy_core.condition import Condition
from hy_core.dit import DiT, DiTConfig
from hy_core.errors import HyError, UsageError
from hy_core.flow.denoise import Denoiser
from hy_core.plugins import Plugins
from hy_core.weights.lora import SPELLINGS, merge, save_adapter

CONFIG = DiTConfig(
    width=24,
    heads=2,
    depth_double=2,
    depth_single=2,
    depth_refiner=1,
    rope_dims=(4, 4, 4),
    text_dim=8,
    pooled_dim=8,
    guidance=False,
)
KINDS = ("lora", "dora", "lokr", "bottleneck")


def network():
    torch.manual_seed(0)
    dit = DiT(CONFIG).eval()
    with torch.no_grad():
        for parameter in dit.parameters():
            parameter.normal_(std=0.1)
    return dit.requires_grad_(False)


def output(dit):
    generator = torch.Generator().manual_seed(1)
    cond = Condition(
        text=[torch.randn(3, 8, generator=generator)],
        pooled=torch.randn(1, 8, generator=generator),
        frames=2,
        size=(4, 4),
        patch=(2, 2),
    )
    with torch.no_grad():
        return Denoiser(dit, cond)(torch.randn(1, 16, 2, 4, 4, generator=generator), torch.full((1,), 0.5))


def trained(kind, targets=("all",), **config):
    """A network with adapters whose values are random, as after a training."""
    dit = network()
    attach(dit, AdapterConfig(kind, rank=4, targets=targets, **config))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in dit.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return dit


@pytest.mark.parametrize("kind", KINDS)
def test_an_untrained_adapter_changes_nothing_and_is_all_that_trains(kind):
    dit = network()
    before = output(dit)
    names = attach(dit, AdapterConfig(kind, rank=4, targets=("all",)))
    assert names and (output(dit) - before).abs().max() < 1e-5
    trains = {name for name, parameter in dit.named_parameters() if parameter.requires_grad}
    assert trains and all(".adapter." in name or ".bottleneck." in name for name in trains)
    detach(dit)
    assert torch.equal(output(dit), before) and dit.state_dict().keys() == network().state_dict().keys()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("alpha", [0.0, 2.0])
def test_a_saved_adapter_merged_into_the_base_gives_what_the_live_one_gave(kind, alpha, tmp_path):
    live = trained(kind, alpha=alpha)
    wanted = output(live)
    assert (wanted - output(network())).abs().max() > 1e-3
    save_adapter(live, tmp_path / "a.safetensors")
    plain = network()
    assert merge(plain, tmp_path / "a.safetensors") > 0
    assert torch.allclose(output(plain), wanted, atol=1e-5)


def test_a_bottleneck_at_half_strength_and_beside_another_one(tmp_path):
    save_adapter(trained("bottleneck"), tmp_path / "a.safetensors")
    one, two, off = network(), network(), network()
    merge(one, tmp_path / "a.safetensors")
    merge(two, tmp_path / "a.safetensors", 0.5)
    merge(two, tmp_path / "a.safetensors", 0.5)
    merge(off, tmp_path / "a.safetensors", 0.0)
    assert not torch.allclose(output(one), output(network()), atol=1e-4)
    assert not torch.allclose(output(two), output(network()), atol=1e-4)
    assert torch.equal(output(off), output(network()))


def test_a_bottleneck_leaves_masked_tokens_alone():
    dit = trained("bottleneck", targets=("double_blocks.0",))
    module = dit.double_blocks[0].after["bottleneck"]
    x, mask = torch.randn(1, 2, 4, 24), torch.zeros(1, 2, 4, 1)
    mask[:, 1] = 1
    found = module(x, mask)
    assert torch.equal(found[:, 0], x[:, 0]) and torch.allclose(found[:, 1], module(x, None)[:, 1])


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("kind", ["lora", "dora", "lokr"])
def test_every_spelling_is_read_back_or_refused(kind, spelling, tmp_path):
    live, path = trained(kind, alpha=3.0), tmp_path / "a.safetensors"
    refused = (kind == "lokr" and spelling in ("diffusers", "official")) or (
        kind == "dora" and spelling == "official"
    )
    if refused:
        with pytest.raises(UsageError, match="can't load"):
            save_adapter(live, path, spelling)
        return
    save_adapter(live, path, spelling)
    plain = network()
    merge(plain, path)
    assert torch.allclose(output(plain), output(live), atol=1e-5)


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_diffusers_itself_loads_the_file_and_gives_the_same_output(kind, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    pytest.importorskip("peft")
    from hy_core.weights.keys import DIFFUSERS
    from safetensors.torch import load_file

    theirs = diffusers.HunyuanVideoTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=2,
        num_single_layers=2,
        num_refiner_layers=1,
        rope_axes_dim=(4, 4, 4),
        text_embed_dim=8,
        pooled_projection_dim=8,
        guidance_embeds=False,
    ).eval()
    base, live = network(), trained(kind)
    theirs.load_state_dict(dict(DIFFUSERS.export(base.state_dict(), base.width)), strict=True)
    generator = torch.Generator().manual_seed(1)
    text, pooled = torch.randn(3, 8, generator=generator), torch.randn(1, 8, generator=generator)
    latents = torch.randn(1, 16, 2, 4, 4, generator=generator)

    def theirs_output():
        with torch.no_grad():
            return theirs(
                hidden_states=latents,
                timestep=torch.tensor([500.0]),
                encoder_hidden_states=text[None],
                encoder_attention_mask=torch.ones(1, 3),
                pooled_projections=pooled,
                return_dict=False,
            )[0]

    assert torch.allclose(theirs_output(), output(base), atol=1e-4)
    save_adapter(live, tmp_path / "a.safetensors", "diffusers")
    theirs.load_lora_adapter(load_file(tmp_path / "a.safetensors"), prefix="transformer", adapter_name="mine")
    assert (output(live) - output(base)).abs().max() > 1e-3
    assert torch.allclose(theirs_output(), output(live), atol=1e-4)


def test_kohya_and_comfyui_keys_are_those_that_these_programs_look_up(tmp_path):
    from safetensors.torch import load_file

    live = trained("lora", targets=("blocks",))
    save_adapter(live, tmp_path / "k.safetensors", "kohya")
    save_adapter(live, tmp_path / "c.safetensors", "comfyui")
    kohya, comfy = load_file(tmp_path / "k.safetensors"), load_file(tmp_path / "c.safetensors")
    # musubi-tuner: lora_unet_ and the module's name with underscores; down [r, in], up [out, r], alpha a number
    assert kohya["lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight"].shape == (4, 24)
    assert kohya["lora_unet_single_blocks_1_linear1.lora_up.weight"].shape == (7 * 24, 4)
    assert kohya["lora_unet_double_blocks_0_txt_mlp_fc1.alpha"].item() == 4
    # ComfyUI: diffusion_model. and its own state dict's names
    for name in ("double_blocks.0.img_attn.qkv", "double_blocks.1.txt_mlp.0", "single_blocks.0.linear2"):
        assert {f"diffusion_model.{name}.lora_{x}.weight" for x in "AB"} <= comfy.keys()
        assert comfy[f"diffusion_model.{name}.alpha"].item() == 4


def test_targets_are_sets_and_patterns_and_a_wrong_one_is_named():
    dit = network()
    every, blocks = select_layers(dit, ("all",)), select_layers(dit, ("blocks",))
    assert set(blocks) < set(every) and "final_layer.linear" in every and "final_layer.linear" not in blocks
    assert not any("mod" in name for name in blocks)
    assert select_layers(dit, ("double_blocks.1.img_*", "final_layer.linear"))[-1] == "final_layer.linear"
    with pytest.raises(UsageError, match="'sinle_blocks' matches no linear layer"):
        select_layers(dit, ("sinle_blocks",))


def test_a_rank_above_a_layers_sides_is_reduced_at_the_same_strength(tmp_path):
    dit = network()
    attach(dit, AdapterConfig("lora", rank=1000, alpha=500, targets=("all",)))
    parts = parts_of(dit)
    assert parts["txt_in.input_embedder"]["down"].shape == (8, 8)
    assert dit.txt_in.input_embedder.adapter.scale == 0.5


def test_a_plugin_adds_a_kind_and_an_unknown_one_is_named():
    class Mine:
        @hookimpl
        def register_adapters(self, register):
            register("mine", LoRA)

    plugins = Plugins([])
    plugins.add("mine", Mine())
    assert find_kind("mine", plugins) is LoRA
    with pytest.raises(UsageError, match="no adapter 'lorra'"):
        find_kind("lorra")


@pytest.mark.parametrize("change", ["missing", "shape", "nan", "block", "key", "kind"])
def test_a_broken_bottleneck_file_is_refused_with_the_network_unchanged(change, tmp_path):
    from hy_core.weights import save_safetensors
    from safetensors.torch import load_file

    path, kind = tmp_path / "a.safetensors", "bottleneck"
    save_adapter(trained("bottleneck"), path)
    state = load_file(path)
    if change == "missing":
        del state["double_blocks.0.gate"]
    elif change == "shape":
        state["double_blocks.0.down.weight"] = torch.zeros(4, 23)
    elif change == "nan":
        state["double_blocks.0.gate"] = torch.tensor([float("nan")])
    elif change == "block":
        state = {key.replace("double_blocks.1", "double_blocks.9"): value for key, value in state.items()}
    elif change == "key":
        state["__import__"] = torch.zeros(1)
    else:
        kind = "lora"
    save_safetensors(path, state, {"hy.adapter": kind})
    dit = network()
    with pytest.raises(HyError):
        merge(dit, path)
    assert torch.equal(output(dit), output(network()))
