"""Low-rank weights in every naming: what is added is what the file's own convention says."""

from __future__ import annotations

import secrets

import pytest
import torch
from hy_core import models
from hy_core.dit import DiT, DiTConfig
from hy_core.errors import HyError, MissingError, UsageError
from hy_core.lora_option import loras
from hy_core.weights import save_safetensors
from hy_core.weights.keys import COMFYUI, DIFFUSERS
from hy_core.weights.lora import merge

CONFIG = DiTConfig(
    width=24,
    heads=2,
    depth_double=1,
    depth_single=1,
    depth_refiner=1,
    rope_dims=(4, 4, 4),
    text_dim=8,
    pooled_dim=8,
)
# What the official training adapts, by the names of the network.
ADAPTED = (
    "double_blocks.0.img_mod.linear",
    "double_blocks.0.img_attn_qkv",
    "double_blocks.0.txt_attn_proj",
    "double_blocks.0.img_mlp.fc1",
    "single_blocks.0.linear1",
    "single_blocks.0.linear2",
    "single_blocks.0.modulation.linear",
    "txt_in.individual_token_refiner.blocks.0.mlp.fc2",
    "final_layer.adaLN_modulation.1",
)
RANK = 2


@pytest.fixture
def dit():
    torch.manual_seed(0)
    return DiT(CONFIG).eval().requires_grad_(False)


def pairs(dit, rank=RANK):
    """A random pair for each adapted layer, by the layer's name."""
    shapes = {name: dit.get_submodule(name).weight.shape for name in ADAPTED}
    return {name: (torch.randn(rank, i), torch.randn(o, rank)) for name, (o, i) in shapes.items()}


def changes(dit, path, scale=1.0):
    """What merging a file adds to each layer."""
    before = {name: value.clone() for name, value in dit.state_dict().items()}
    count = merge(dit, path, scale)
    after = dit.state_dict()
    return count, {
        name: after[name] - value for name, value in before.items() if not torch.equal(after[name], value)
    }


def check(dit, path, pairs, scale=1.0, factor=1.0):
    count, found = changes(dit, path, scale)
    assert set(found) == {f"{name}.weight" for name in pairs}
    for name, (down, up) in pairs.items():
        assert torch.allclose(found[f"{name}.weight"], factor * scale * up @ down, atol=1e-5), name
    return count


def test_official_names_and_an_alpha_that_is_ignored(dit, tmp_path):
    state = {}
    for name, (down, up) in (made := pairs(dit)).items():
        key = f"Hunyuan_video_I2V_lora_{name.replace('.', '_')}"
        state |= {
            f"{key}.lora_down.weight": down,
            f"{key}.lora_up.weight": up,
            f"{key}.alpha": torch.tensor(64.0),
        }
    save_safetensors(tmp_path / "official.safetensors", state)
    assert check(dit, tmp_path / "official.safetensors", made, scale=0.7) == len(ADAPTED)


def test_kohya_names_and_an_alpha_that_counts(dit, tmp_path):
    state = {}
    for name, (down, up) in (made := pairs(dit)).items():
        key = f"lora_unet_{name.replace('.', '_')}"
        state |= {
            f"{key}.lora_down.weight": down,
            f"{key}.lora_up.weight": up,
            f"{key}.alpha": torch.tensor(1.0),
        }
    save_safetensors(tmp_path / "kohya.safetensors", state)
    check(dit, tmp_path / "kohya.safetensors", made, factor=1 / RANK)


@pytest.mark.parametrize("prefix", ["", "transformer.", "diffusion_model."])
def test_peft_names_after_official_ones(dit, tmp_path, prefix):
    state = {}
    for name, (down, up) in (made := pairs(dit)).items():
        state |= {f"{prefix}{name}.lora_A.weight": down, f"{prefix}{name}.lora_B.weight": up}
    save_safetensors(tmp_path / "peft.safetensors", state)
    check(dit, tmp_path / "peft.safetensors", made)


@pytest.mark.parametrize(("table", "prefix"), [(DIFFUSERS, "transformer."), (COMFYUI, "diffusion_model.")])
def test_names_of_other_layouts_split_fused_layers_by_rows(dit, tmp_path, table, prefix):
    """One pair for a fused layer of ours is a pair of each of their layers, with the same `down`."""
    state, made = {}, pairs(dit)
    for name, (down, up) in made.items():
        theirs = table.export({f"{name}.weight": up}, CONFIG.width)
        for key, rows in theirs:
            stem = prefix + key.removesuffix(".weight")
            state |= {f"{stem}.lora_A.weight": down.clone(), f"{stem}.lora_B.weight": rows}
    save_safetensors(tmp_path / "other.safetensors", state)
    count, found = changes(dit, tmp_path / "other.safetensors")
    assert count == len(state) // 2
    for name, (down, up) in made.items():
        assert torch.allclose(found[f"{name}.weight"], up @ down, atol=1e-5), name


@pytest.mark.parametrize("name", ["lora_unet_img_in_proj", "transformer.x_embedder.proj"])
def test_the_embedding_of_patches_is_a_convolution(dit, tmp_path, name):
    """What the file adds is a convolution with `down` and then one of size 1 with `up`."""
    channels, patch = CONFIG.in_channels, CONFIG.patch
    down, up = torch.randn(RANK, channels, *patch), torch.randn(CONFIG.width, RANK, 1, 1, 1)
    state = {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
    save_safetensors(tmp_path / "conv.safetensors", state)
    x = torch.randn(1, channels, 2, 4, 4)
    before = dit.img_in(x)
    assert merge(dit, tmp_path / "conv.safetensors", 0.5) == 1
    added = torch.conv3d(torch.conv3d(x, down, stride=patch), up).flatten(3).permute(0, 2, 3, 1)
    torch.testing.assert_close(dit.img_in(x) - before, 0.5 * added, atol=1e-4, rtol=1e-4)


def test_diffusers_itself_gives_the_same_numbers_with_the_file(tmp_path):
    """Pairs added to diffusers' own layers, and the same as a file merged into ours."""
    diffusers = pytest.importorskip("diffusers")
    seed = secrets.randbelow(2**31)
    torch.manual_seed(seed)
    from hy_core.weights import load_dit

    theirs = diffusers.HunyuanVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=12, num_layers=1,
        num_single_layers=1, num_refiner_layers=1, text_embed_dim=8, pooled_projection_dim=8, rope_axes_dim=(4, 4, 4),
        guidance_embeds=False,
    ).eval()  # fmt: skip
    theirs.save_pretrained(tmp_path / "base")
    ours = load_dit(tmp_path / "base").eval().requires_grad_(False)
    state = {}
    for name, layer in theirs.named_modules():
        if name.endswith(("to_q", "to_k", "add_v_proj", "proj_mlp", "proj_out", "norm_out.linear")):
            down, up = torch.randn(2, layer.in_features) / 4, torch.randn(layer.out_features, 2) / 4
            layer.weight.data += up @ down
            state |= {f"transformer.{name}.lora_A.weight": down, f"transformer.{name}.lora_B.weight": up}
    save_safetensors(tmp_path / "lora.safetensors", state)
    merge(ours, tmp_path / "lora.safetensors")
    latents, text, pooled = torch.randn(1, 4, 2, 4, 4), torch.randn(1, 3, 8), torch.randn(1, 8)
    with torch.no_grad():
        expected = theirs(latents, torch.tensor([300.0]), text, torch.ones(1, 3), pooled, return_dict=False)[
            0
        ]
        known = ours.prepare(list(text), pooled, torch.arange(2), (4, 4))
        found = ours(latents, torch.full((1, 2), 0.3), known)
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max().clamp(min=1), f"seed {seed}"


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (
            {"double_blocks.7.img_attn_qkv.lora_A.weight": torch.ones(2, 24)},
            "a layer that this network doesn't have",
        ),
        ({"single_blocks.0.linear2.lora_A.weight": torch.ones(2, 120)}, "only half"),
        ({"single_blocks.0.linear2.weight": torch.ones(2, 2)}, "no LoRA"),
        (
            {
                "single_blocks.0.linear2.lora_A.weight": torch.ones(2, 7),
                "single_blocks.0.linear2.lora_B.weight": torch.ones(24, 2),
            },
            "adds 24x7",
        ),
        (
            {
                "single_blocks.0.linear2.lora_A.weight": torch.full((2, 120), torch.nan),
                "single_blocks.0.linear2.lora_B.weight": torch.ones(24, 2),
            },
            "aren't numbers",
        ),
    ],
)
def test_what_does_not_fit_is_one_line_and_changes_nothing(dit, tmp_path, state, said):
    save_safetensors(tmp_path / "bad.safetensors", state)
    before = {name: value.clone() for name, value in dit.state_dict().items()}
    with pytest.raises(HyError, match=said):
        merge(dit, tmp_path / "bad.safetensors")
    assert all(torch.equal(value, before[name]) for name, value in dit.state_dict().items())


def test_files_and_scales_of_the_option():
    found = loras("a.safetensors, b.safetensors=0.5")
    assert [(str(path), scale) for path, scale in found] == [("a.safetensors", 1.0), ("b.safetensors", 0.5)]
    with pytest.raises(UsageError, match="not like"):
        loras("a.safetensors=much")


def test_a_model_is_loaded_with_it_and_says_so(tmp_path, hy):
    width = models.configs(models.find("pocket"))[0].width
    state = {
        "single_blocks.0.modulation.linear.lora_A.weight": torch.ones(1, width),
        "single_blocks.0.modulation.linear.lora_B.weight": torch.ones(3 * width, 1),
    }
    save_safetensors(tmp_path / "mine.safetensors", state)
    plain, changed = models.load("pocket"), models.load("pocket", lora=f"{tmp_path}/mine.safetensors=0.25")
    name = "single_blocks.0.modulation.linear.weight"
    assert torch.allclose(
        changed.dit.state_dict()[name] - plain.dit.state_dict()[name], torch.tensor(0.25), atol=1e-6
    )
    assert "lora mine.safetensors" in changed.hashes
    run = hy("generate", "a red circle", "--lora", "/nowhere/at.safetensors", "--dry-run")
    assert run.exit_code == MissingError.exit_code and run.stderr.startswith("Error: --lora /nowhere")


def test_the_record_tells_lora_files_of_one_name_and_their_settings_apart(tmp_path):
    from hy_core.models.hashing import fingerprints_of

    for folder, value in (("a", 1.0), ("b", 2.0)):
        (tmp_path / folder).mkdir()
        save_safetensors(tmp_path / folder / "adapter_model.safetensors", {"x": torch.full((1,), value)})
    spec = models.find("pocket")
    option = ",".join(str(tmp_path / folder / "adapter_model.safetensors") for folder in "ab")
    found = fingerprints_of(spec, option)
    names = ["lora adapter_model.safetensors", "lora adapter_model.safetensors (2)"]
    assert found[names[0]] != found[names[1]]
    (tmp_path / "a" / "adapter_config.json").write_text('{"lora_alpha": 8}')
    changed = fingerprints_of(spec, option)
    assert changed[names[0]] != found[names[0]] and changed[names[1]] == found[names[1]]
