"""The causal VAE: its shapes and numbers, its two equal paths, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from core.vae_small import SMALL, Memory, make, rand
from hy_core.errors import UsageError
from hy_core.vae import VAE, Posterior, VAEConfig, inference
from hy_core.vae.layers import CausalConv3d, FrameCausalAttention, enlarge
from hypothesis import given, settings
from hypothesis import strategies as st

# Shapes and checkpoints


def test_published_size():
    with torch.device("meta"):
        vae = VAE(VAEConfig.named["884-16c-hy"])
    assert len(vae.state_dict()) == 248
    assert sum(p.numel() for p in vae.parameters()) == 246_478_803
    assert sum(p.numel() for p in vae.encoder.parameters()) == 100_341_408


def test_strides_read_the_same_in_both_directions():
    assert VAEConfig().strides() == [(1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 1, 1)]
    assert VAEConfig(channels=(32, 32, 32), space=2, time=2).strides() == [(1, 2, 2), (2, 1, 1), (1, 1, 1)]


def test_config_is_read_by_its_keys():
    ours = VAEConfig(channels=(8, 8, 12, 12), layers=1, groups=4, latent_channels=4, sample_size=32)
    blocks = {
        "_class_name": "anything",
        "block_out_channels": [8, 8, 12, 12],
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "latent_channels": 4,
        "sample_size": 32,
        "act_fn": "silu",
        "scaling_factor": 0.476986,
        "spatial_compression_ratio": 8,
    }
    assert VAEConfig.from_dict(blocks | {"time_compression_ratio": 4}) == ours
    assert VAEConfig.from_dict(blocks | {"temporal_compression_ratio": 4}) == ours
    assert VAEConfig.from_dict(ours.to_json()) == ours


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"chanels": [8]}, "chanels"),
        ({"channels": (10, 10), "groups": 4, "space": 2, "time": 1}, "not divisible by 4"),
        ({"space": 12}, "space=12"),
        ({"block_out_channels": [8], "act_fn": "relu"}, "relu"),
    ],
)
def test_config_that_makes_no_vae(config, message):
    with pytest.raises(UsageError, match=message) as error:
        VAEConfig.from_dict(config)
    assert error.value.hint


@pytest.mark.parametrize("frames", [1, 5, 9])
def test_shapes_there_and_back(frames):
    vae = make()
    posterior = vae.encode(rand(2, 3, frames, 16, 24))
    assert posterior.mean.shape == posterior.logvar.shape == (2, 4, (frames - 1) // 4 + 1, 2, 3)
    assert vae.decode(posterior.mode()).shape == (2, 3, frames, 16, 24)


def test_trap_5_the_first_latent_of_a_clip_is_not_that_of_its_first_frame():
    """Core facts, trap 5: norms take their statistics over time, so that the "causal" VAE looks ahead."""
    vae, clip = make(), rand(1, 3, 9, 16, 24)
    whole, alone = vae.encode(clip).mode()[:, :, :1], vae.encode(clip[:, :, :1]).mode()
    assert (whole - alone).abs().mean() > 0.02 * alone.abs().mean()
    later = torch.cat([clip[:, :, :5], 3 * clip[:, :, 5:]], 2)  # only later frames are others
    assert not torch.allclose(vae.encode(later).mode()[:, :, :1], whole, rtol=1e-2)
    for layer in vae.encoder.modules():  # without the norms nothing looks ahead
        if isinstance(layer, torch.nn.GroupNorm):
            layer.forward = lambda x: x
    with torch.enable_grad():  # the plain path, which calls the layers
        whole, alone = vae.encode(clip).mode()[:, :, :1], vae.encode(clip[:, :, :1]).mode()
    assert (whole - alone).abs().max() < 1e-4 * alone.abs().max()


def test_model_space():
    vae, z = make(), rand(1, 4, 1, 2, 2)
    assert torch.equal(vae.to_model(z), z * 0.476986)
    torch.testing.assert_close(vae.from_model(vae.to_model(z)), z)


# The posterior


def test_posterior_is_the_normal_distribution():
    moments = rand(2, 8, 2, 3, 3)
    posterior = Posterior.of(moments)
    mean, deviation = moments[:, :4], (moments[:, 4:] / 2).exp()
    normal = torch.distributions.Normal(mean, deviation)
    kl = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(posterior.kl(), kl.sum((1, 2, 3, 4)))
    assert torch.equal(posterior.mode(), mean)
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(5))
    sample = posterior.sample(torch.Generator().manual_seed(5))
    torch.testing.assert_close(sample, mean + deviation * noise)


def test_log_variance_is_clamped():
    logvar = Posterior.of(torch.tensor([0.0, -99.0, 0.0, 99.0]).view(1, 4, 1, 1, 1)).logvar
    assert logvar.flatten().tolist() == [0.0, 20.0]
    assert Posterior.of(torch.tensor([0.0, -99.0]).view(1, 2, 1, 1, 1)).logvar.item() == -30.0


# The layers


def test_convolution_sees_no_later_frame():
    torch.manual_seed(0)
    conv = CausalConv3d(2, 3)
    x = rand(1, 2, 6, 5, 5)
    later = x.clone()
    later[:, :, 4:] += 1
    torch.testing.assert_close(conv(x)[:, :, :4], conv(later)[:, :, :4])
    assert not torch.allclose(conv(x)[:, :, 4], conv(later)[:, :, 4])


def test_first_frame_grows_in_space_only():
    x = torch.arange(12.0).view(1, 1, 3, 2, 2)
    big = enlarge(x, (2, 2, 2))
    assert big.shape == (1, 1, 5, 4, 4)
    frames = F.interpolate(x[0], scale_factor=2)[0]
    assert torch.equal(big[0, 0], frames[[0, 1, 1, 2, 2]])


def test_attention_is_causal_by_frame_without_a_dense_mask():
    torch.manual_seed(0)
    layer, x = FrameCausalAttention(8, 4).requires_grad_(False), rand(2, 8, 5, 6, 7)
    tokens = layer.group_norm(x).flatten(2).transpose(1, 2)
    frame = torch.arange(5).repeat_interleave(42)
    q, k, v = layer.to_q(tokens), layer.to_k(tokens), layer.to_v(tokens)
    scores = (q @ k.transpose(1, 2)) / math.sqrt(8)
    scores = scores.masked_fill(frame[None, :] > frame[:, None], -math.inf)
    dense = layer.to_out[0](scores.softmax(-1) @ v).transpose(1, 2).view_as(x) + x
    with Memory() as memory:
        found = layer(x)
    torch.testing.assert_close(found, dense, atol=2e-6, rtol=0)
    assert memory.largest < len(frame) ** 2


# Two paths, one result


@settings(max_examples=12, deadline=None)
@given(
    batch=st.integers(1, 2),
    latent=st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3)),
    piece=st.sampled_from([1, 20_000, 2**25]),
    config=st.sampled_from(
        [
            SMALL,
            VAEConfig(channels=(4, 8, 8), latent_channels=2, layers=2, groups=2, space=4, time=2),
            VAEConfig(channels=(4, 8, 8), latent_channels=2, layers=1, groups=4, space=2, time=4),
            VAEConfig(channels=(4, 4), latent_channels=2, layers=1, groups=2, space=2, time=1),
        ]
    ),
)
def test_without_gradients_the_result_is_the_same(batch, latent, piece, config):
    vae, (t, h, w) = make(config).double(), latent
    z = rand(batch, config.latent_channels, t, h, w).double()
    x = rand(batch, 3, (t - 1) * config.time + 1, h * config.space, w * config.space, seed=1).double()
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(inference, "PIECE", piece)
        pixels, moments = vae.decode_inference(z), vae.moments_inference(x)
    # Rounding only: normalising a picture of one colour multiplies it by a thousand, several times over.
    torch.testing.assert_close(pixels, vae.decode(z), atol=1e-7, rtol=1e-7)
    torch.testing.assert_close(moments, vae.moments(x), atol=1e-7, rtol=1e-7)


def test_inputs_are_left_alone():
    vae, z, x = make(), rand(1, 4, 2, 2, 2), rand(1, 3, 5, 16, 16)
    kept = z.clone(), x.clone()
    with torch.inference_mode():
        vae.decode_inference(z), vae.moments_inference(x)
    assert torch.equal(z, kept[0]) and torch.equal(x, kept[1])


def test_half_the_memory(monkeypatch):
    vae, z = make(), rand(1, 4, 5, 6, 6)
    monkeypatch.setattr(inference, "PIECE", 100_000)
    with torch.no_grad():
        with Memory() as plain:
            vae.decoder(vae.post_quant_conv(z))
        with Memory() as spared:
            vae.decode_inference(z)
    assert spared.peak < 0.5 * plain.peak


def test_gradients_reach_every_parameter():
    vae = make().requires_grad_(True)
    x = rand(1, 3, 5, 16, 16)
    posterior = vae.encode(x)
    loss = (vae.decode(posterior.sample(torch.Generator().manual_seed(0))) - x).square().mean()
    (loss + posterior.kl().mean()).backward()
    assert [name for name, p in vae.named_parameters() if p.grad is None or not p.grad.abs().sum()] == [
        # A constant added to every key moves all scores of a query alike.
        name
        for name, p in vae.named_parameters()
        if name.endswith("to_k.bias") and p.grad is not None and not p.grad.abs().sum()
    ]


def test_half_precision_loses_no_more_than_the_plain_path():
    vae, x = make(), rand(1, 3, 5, 16, 16)
    with torch.no_grad():
        exact = vae.encode(x).mode()
        z = exact.bfloat16()
        pixels = vae.decode(z.float())
    vae.bfloat16()
    with torch.no_grad():
        fast_pixels, fast_latents = vae.decode_inference(z), vae.encode_inference(x).mode()
    plain_pixels, plain_latents = vae.decode(z), vae.encode(x).mode()
    assert fast_pixels.dtype == fast_latents.dtype == torch.bfloat16
    for found, plain, expected in [(fast_pixels, plain_pixels, pixels), (fast_latents, plain_latents, exact)]:
        assert (found.float() - expected).norm() < 1.25 * (plain.float() - expected).norm()


def test_inputs_are_cast_to_the_weights():
    vae = make().double()
    with torch.no_grad():
        assert vae.decode(vae.encode(rand(1, 3, 1, 16, 16)).mode().float()).dtype == torch.float64


# What it refuses


@pytest.mark.parametrize(
    ("shape", "message", "fix"),
    [
        ((1, 3, 6, 16, 16), "4k\\+1 frames, not 6", "5 or 9"),
        ((1, 3, 5, 20, 16), "height 20", "height 16"),
        ((1, 3, 5, 16, 30), "width 30", "width 32"),
        ((1, 3, 5, 4, 16), "height 4", "height 8"),
        ((3, 5, 16, 16), "shape", "axes"),
        ((1, 4, 5, 16, 16), "shape", "axes"),
    ],
)
def test_sizes_without_latents(shape, message, fix):
    with pytest.raises(UsageError, match=message) as error:
        make().encode(rand(*shape))
    assert fix in error.value.hint


def test_latents_of_another_vae():
    with pytest.raises(UsageError, match="latents have shape"):
        make().stream(rand(1, 16, 2, 2, 2))


def test_pixels_of_bytes():
    with pytest.raises(UsageError, match="uint8") as error:
        make().encode(torch.zeros(1, 3, 1, 16, 16, dtype=torch.uint8))
    assert "127.5" in error.value.hint
