"""VAE checkpoints: every kind of file and folder, with and without a configuration beside them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hy_core.errors import HyError
from hy_core.vae import VAE, VAEConfig
from hy_core.weights import load_vae
from safetensors.torch import save_file

VAE_CONFIG = VAEConfig(channels=(8, 8, 8, 8), latent_channels=4, layers=1, groups=4)


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("wrapper", ["flat", "state_dict", "prefix", "diffusers"])
def test_vae_of_every_kind(wrapper: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    vae = VAE(VAE_CONFIG)
    state = vae.state_dict()
    config = {
        "in_channels": 3, "out_channels": 3, "latent_channels": 4, "block_out_channels": [8, 8, 8, 8],
        "layers_per_block": 1, "act_fn": "silu", "norm_num_groups": 4, "scaling_factor": 0.476986,
        "spatial_compression_ratio": 8,
        "temporal_compression_ratio" if wrapper == "diffusers" else "time_compression_ratio": 4,
    }  # fmt: skip
    folder = tmp_path / "vae"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    if wrapper == "diffusers":
        save_file(state, folder / "diffusion_pytorch_model.safetensors")
    else:
        prefixed = {f"vae._orig_mod.{key}": value for key, value in state.items()} | {
            "loss.weight": torch.zeros(1)
        }
        inner = prefixed if wrapper == "prefix" else state | {"step": torch.tensor(3)}
        torch.save({"state_dict": inner} if wrapper != "flat" else inner, folder / "pytorch_model.pt")
    for path in (folder, tmp_path):
        loaded = load_vae(path)
        assert same(loaded, vae) and loaded.config == VAE_CONFIG


def test_published_vae_needs_no_config(tmp_path: Path) -> None:
    """Its shapes say all; a VAE of other widths doesn't show its norm groups, which would be guessed wrong."""
    from hy_core.weights.detect import vae_config

    with torch.device("meta"):
        state = VAE(VAEConfig()).state_dict()
    assert vae_config({key: tuple(value.shape) for key, value in state.items()}) == VAEConfig()
    save_file(VAE(VAE_CONFIG).state_dict(), tmp_path / "vae.safetensors")
    with pytest.raises(HyError, match="norm groups"):
        load_vae(tmp_path / "vae.safetensors")
