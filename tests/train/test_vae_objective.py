from __future__ import annotations

import pytest
import torch
from hy_core.data import SourceSpec
from hy_core.errors import UsageError
from hy_core.training.batch import to_pixels
from hy_core.vae import VAE, VAEConfig
from hy_train import recipe
from hy_train.objectives.vae import VAEObjective, initialise
from hy_train.objectives.vae_channels import reduce_channels
from hy_world.sources.scenes import SceneClip, WorldSource

SMALL = VAEConfig(latent_channels=4, channels=(8, 8, 8), layers=1, groups=1, space=4)


def codec() -> VAE:
    """A small codec; its last two latent channels are the same, so that three say it all."""
    torch.manual_seed(0)
    vae = VAE(SMALL)
    initialise(vae, -4.0)
    with torch.no_grad():
        vae.quant_conv.weight[3], vae.quant_conv.bias[3] = vae.quant_conv.weight[2], 0.7
        for conv in (vae.quant_conv, vae.post_quant_conv, vae.decoder.conv_in.conv):
            conv.bias += torch.linspace(-0.5, 0.5, len(conv.bias))
    return vae.eval()


def clips(count: int = 4) -> list[SceneClip]:
    source = WorldSource(SourceSpec("world", count=count, frames=5, height=32, width=32))
    return [source[index] for index in range(count)]


@torch.no_grad()
def test_a_narrowed_codec_keeps_what_its_components_hold():
    vae = codec()
    small = reduce_channels(vae, 3, clips(), logvar=-4.0)
    video = to_pixels(clips(1)[0].video())[None]
    torch.testing.assert_close(
        small.decode(small.encode(video).mode()), vae.decode(vae.encode(video).mode()), atol=1e-4, rtol=1e-4
    )
    less = reduce_channels(vae, 1, clips(), logvar=-4.0)
    assert not torch.allclose(
        less.decode(less.encode(video).mode()), vae.decode(vae.encode(video).mode()), atol=1e-2
    )


@torch.no_grad()
def test_narrowed_latents_are_uncorrelated_and_two_wide_with_little_noise():
    vae = codec()
    small = reduce_channels(vae, 3, clips(), logvar=-4.0)
    found = [small.encode(to_pixels(clip.video())[None]) for clip in clips()]
    flat = torch.cat([one.mode() for one in found]).transpose(0, 1).flatten(1)
    spread = torch.cov(flat)
    assert spread.diagonal().sqrt().mean() == pytest.approx(2.0, rel=0.35)
    assert (spread - spread.diagonal().diag()).abs().max() < 1e-2
    assert flat.mean(1).abs().max() < 1e-2
    assert all(torch.equal(one.logvar, torch.full_like(one.logvar, -4.0)) for one in found)


@pytest.mark.parametrize("channels", [0, 4, 5])
def test_channels_can_only_be_reduced(channels):
    with pytest.raises(UsageError, match="latent_channels"):
        reduce_channels(codec(), channels, clips(), logvar=-4.0)


def test_training_goes_on_from_a_narrowed_codec(tmp_path):
    table = {
        "objective": "vae",
        "steps": 2,
        "batch": 1,
        "model": {"latent_channels": 3},
        "plugins": ["world"],
        "init_from": str(tmp_path / "export"),
        "data": {
            "source": "world",
            "size": 32,
            "frames": 5,
            "phases": [{"until": 1.0, "crop": 32, "frames": [5]}],
        },
    }
    (tmp_path / "first").mkdir()
    wide = VAEObjective(recipe.parse({**table, "model": {**SMALL.to_json()}, "init_from": ""}), tmp_path)
    with torch.no_grad():
        wide.export(tmp_path / "export")
    narrow = VAEObjective(recipe.parse(table), tmp_path)
    assert narrow.config.latent_channels == 3
    loss, _ = narrow.loss(torch.zeros(1, 3, 5, 32, 32), torch.Generator().manual_seed(0))
    loss.backward()
    assert all(weight.grad is not None for weight in narrow.model.parameters())
    with pytest.raises(UsageError, match="determines the codec"):
        VAEObjective(recipe.parse({**table, "model": {"layers": 2}}), tmp_path)
