"""The VAE against the installed diffusers package: other random weights and shapes at every run.

In float64, where what differs is a mistake: in float32 tiny random networks amplify rounding now and then.
The golden cases hold float32 to their tolerances.
"""

from __future__ import annotations

import random

import pytest
import torch
from hy_core.vae import VAE, Axis, Tiling, VAEConfig

diffusers = pytest.importorskip("diffusers", reason="diffusers is a development dependency")


@pytest.fixture(params=range(4))
def drawn(request):
    """Both packages' VAE with the same weights, and the random source to draw inputs from."""
    seed = random.SystemRandom().randrange(2**31)
    print(f"seed {seed}")  # pytest shows it when the test fails
    rng = random.Random(seed)
    torch.manual_seed(seed)
    groups = rng.choice([2, 4])
    config = VAEConfig(
        channels=tuple(groups * rng.randint(2, 4) for _ in range(4)),  # one value a group has no variance
        layers=rng.randint(1, 2),
        groups=groups,
        latent_channels=rng.randint(2, 5),
    )
    theirs = diffusers.AutoencoderKLHunyuanVideo(
        block_out_channels=config.channels,
        layers_per_block=config.layers,
        norm_num_groups=config.groups,
        latent_channels=config.latent_channels,
    )
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn(parameter.shape))
    ours = VAE(VAEConfig.from_dict(dict(theirs.config)))
    assert ours.config == config
    ours.load_state_dict(theirs.state_dict())
    return ours.requires_grad_(False).double(), theirs.requires_grad_(False).double(), rng


def tile(rng: random.Random, theirs, mode: str) -> Tiling | None:
    """Set up their tiling and return the same one of ours."""
    if mode == "whole":
        theirs.use_framewise_encoding = theirs.use_framewise_decoding = False
        return None
    if mode == "default":
        return Tiling.DIFFUSERS_DEFAULT
    frames, height, width = (rng.randint(2, 3) for _ in range(3))
    axes = [Axis(4 * frames, 4 * (frames - 1)), Axis(8 * height, 8 * (height - 1)), Axis(8 * width, 8)]
    time, rows, columns = axes
    theirs.enable_tiling(rows.tile, columns.tile, time.tile, rows.stride, columns.stride, time.stride)
    return Tiling(*axes)


@pytest.mark.parametrize("mode", ["whole", "default", "tiled"])
@pytest.mark.parametrize("grad", [False, True], ids=["inference", "training"])
def test_equal_to_diffusers(drawn, mode, grad):
    ours, theirs, rng = drawn
    tiling = tile(rng, theirs, mode)
    shape = rng.randint(1, 8), rng.randint(1, 4), rng.randint(1, 4)
    print(ours.config, tiling, shape)
    z = torch.randn(rng.randint(1, 2), ours.config.latent_channels, *shape).double()
    x = torch.rand(1, 3, 4 * shape[0] - 3, 8 * shape[1], 8 * shape[2]).double() * 2 - 1
    with torch.no_grad():
        pixels, latents = theirs.decode(z).sample, theirs.encode(x).latent_dist
    with torch.set_grad_enabled(grad):
        posterior = ours.encode(x, tiling)
        close(ours.decode(z, tiling), pixels)
    close(posterior.mean, latents.mean)
    close(posterior.logvar, latents.logvar)


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-7)


def test_keys_and_shapes_of_the_published_size():
    with torch.device("meta"):
        ours, theirs = VAE(), diffusers.AutoencoderKLHunyuanVideo()
    shapes = [{key: value.shape for key, value in vae.state_dict().items()} for vae in (ours, theirs)]
    assert shapes[0] == shapes[1]
    assert theirs.config.scaling_factor == ours.config.scaling
