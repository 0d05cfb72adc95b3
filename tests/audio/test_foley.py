"""The released Foley networks: sizes, strict loading, the quirks that their weights need, and training of our own."""

from __future__ import annotations

import pytest
import torch
from hy_audio.dit.losses import flow_loss
from hy_audio.foley import (
    DACVAE,
    DACConfig,
    Foley,
    FoleyConfig,
    Synchformer,
    SynchformerConfig,
    load_dac,
    load_foley,
    load_synchformer,
)
from hy_audio.foley.model import nearest_indices
from hy_audio.foley.solvers import released_solver
from hy_audio.foley.weights import OFFICIAL
from hy_core.errors import HyError, UsageError

TINY = FoleyConfig(
    width=16, heads=2, depth_triple=2, depth_single=1, latent_channels=4, text_dim=6, visual_dim=5, sync_dim=3
)  # fmt: skip
SMALL_DAC = DACConfig(encoder_dim=4, encoder_rates=(2, 3), latent_dim=3, decoder_dim=8, decoder_rates=(3, 2))
SMALL_SYNC = SynchformerConfig(width=64, depth=2, heads=1, mlp_width=96, size=32, patch=16, frames=16, tube=2)


def shaken(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return module.requires_grad_(False)


def inputs() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    return {
        "visual": torch.randn(2, 4, 5, generator=draw),
        "sync": torch.randn(2, 16, 3, generator=draw),
        "text": torch.randn(2, 3, 6, generator=draw),
    }


@pytest.mark.parametrize(("name", "tensors", "billions"), [("XXL", 1087, 5.134), ("XL", 733, 2.913)])
def test_released_sizes(name: str, tensors: int, billions: float) -> None:
    """As many tensors and parameters as the facts count in the official checkpoints."""
    with torch.device("meta"):
        foley = Foley(FoleyConfig.named[name])
    assert len(foley.state_dict()) == tensors
    assert sum(p.numel() for p in foley.parameters()) / 1e9 == pytest.approx(billions, abs=5e-4)


def test_official_names_and_shapes() -> None:
    """The facts' key patterns of a triple block, through the table."""
    with torch.device("meta"):
        foley = Foley(FoleyConfig.named["XXL"])
    official = dict(OFFICIAL.export(foley.state_dict(), 1536))
    d = 1536
    expected = {
        "sync_pos_emb": (1, 1, 8, 768),
        "empty_clip_feat": (1, 768),
        "audio_embedder.proj.weight": (d, 128, 1),
        "visual_proj.w1.weight": (d, 768),
        "cond_in.linear_2.weight": (d, d),
        "time_in.mlp.0.weight": (d, 256),
        "sync_in.2.w2.weight": (d, 4096, 1),
        "triple_blocks.17.v_cond_mod.linear.weight": (9 * d, d),
        "triple_blocks.17.audio_self_attn_qkv.weight": (3 * d, d),
        "triple_blocks.17.v_cond_attn_qkv.bias": (3 * d,),
        "triple_blocks.17.v_cond_attn_k_norm.weight": (128,),
        "triple_blocks.17.text_cross_kv.weight": (2 * d, d),
        "triple_blocks.17.text_cross_k_norm.weight": (128,),
        "triple_blocks.17.audio_mlp.fc1.weight": (4 * d, d),
        "single_blocks.35.linear1.weight": (d, d, 3),
        "single_blocks.35.linear2.w3.weight": (4096, d, 3),
        "final_layer.adaLN_modulation.1.weight": (2 * d, d),
    }
    assert {key: tuple(official[key].shape) for key in expected} == expected


@pytest.mark.parametrize("norm", ["rms", "layer"])
def test_an_official_file_is_read_strictly(tmp_path, norm: str) -> None:
    """A file in the official names needs no config; one tensor less, or one more, is refused with its name."""
    config = FoleyConfig.from_dict(
        {**TINY.to_json(), "head_norm": norm, "sync_kernel": 3, "qkv_bias": norm == "rms"}
    )
    foley = shaken(Foley(config))
    official = dict(OFFICIAL.export(foley.state_dict(), config.width))
    torch.save(official, tmp_path / "foley.pth")
    again = load_foley(tmp_path / "foley.pth")
    assert again.config == config
    latents, time = torch.randn(2, 4, 9), torch.tensor([0.2, 0.9])
    expected = foley(latents, time, foley.prepare(**inputs(), length=9))
    assert torch.equal(again(latents, time, again.prepare(**inputs(), length=9)), expected)

    torch.save({k: v for k, v in official.items() if "text_cross_kv" not in k}, tmp_path / "less.pth")
    with pytest.raises(HyError, match="missing .*text_cross_kv"):
        load_foley(tmp_path / "less.pth")
    torch.save({**official, "other": torch.ones(1)}, tmp_path / "more.pth")
    with pytest.raises(HyError, match="unexpected .other"):
        load_foley(tmp_path / "more.pth")
    torch.save({"a": torch.ones(1)}, tmp_path / "foreign.pth")
    with pytest.raises(HyError, match="aren't those of a Foley network"):
        load_foley(tmp_path / "foreign.pth")


def test_the_last_modulation_acts_only_when_asked() -> None:
    released = shaken(Foley(TINY))
    own = Foley(FoleyConfig.from_dict({**TINY.to_json(), "final_modulation": True}))
    own.load_state_dict(released.state_dict())
    latents, time = torch.randn(2, 4, 9), torch.tensor([0.2, 0.9])

    def run(foley: Foley) -> torch.Tensor:
        with torch.no_grad():
            return foley(latents, time, foley.prepare(**inputs(), length=9))

    before, before_own = run(released), run(own)
    for foley in (released, own):
        foley.final_layer.adaLN_modulation[1].weight.data.add_(1.0)
    assert torch.equal(run(released), before)
    assert not torch.allclose(run(own), before_own, atol=1e-3)


def test_visual_tokens_fall_on_the_audio_tokens_of_the_facts() -> None:
    """64 pictures on 400 latents: positions 7, 19, 31, 43, 57, 69 of the interleaved sequence."""
    assert (2 * nearest_indices(400, 64)[:6] + 1).tolist() == [7, 19, 31, 43, 57, 69]


def test_dropped_rows_see_the_learned_nothing() -> None:
    foley = shaken(Foley(TINY))
    given, latents, time = inputs(), torch.randn(2, 4, 9), torch.tensor([0.2, 0.9])
    half = foley(latents, time, foley.prepare(**given, length=9, dropped=torch.tensor([False, True])))
    whole = foley(latents, time, foley.prepare(**given, length=9))
    visual, sync = foley.empty(2, 4, 16)
    nothing = foley(latents, time, foley.prepare(visual, sync, given["text"], length=9))
    assert torch.allclose(half[0], whole[0], atol=1e-5)
    assert torch.allclose(half[1], nothing[1], atol=1e-5)
    assert not torch.allclose(half[1], whole[1], atol=1e-3)


def test_shapes_that_do_not_fit_are_refused() -> None:
    foley, given = Foley(TINY), inputs()
    with pytest.raises(ValueError, match="8 a segment"):
        foley.prepare(given["visual"], given["sync"][:, :7], given["text"], length=9)
    with pytest.raises(ValueError, match="at least one token"):
        foley.prepare(given["visual"], given["sync"], given["text"][:, :0], length=9)
    for data in ({"sync_modulation": True}, {"use_attention_mask": True}, {}):
        with pytest.raises(UsageError, match="ever released"):
            FoleyConfig.from_official({"condition_dim": 6, **data})
    with pytest.raises(UsageError, match="unknown solver"):
        released_solver("rk45", lambda x, sigma, step: x, torch.ones(2))


def test_it_can_be_trained() -> None:
    """The loss falls, and the features of no picture get a gradient, from the start on."""
    torch.manual_seed(0)
    foley = Foley(FoleyConfig.from_dict({**TINY.to_json(), "final_modulation": True}))
    optimiser = torch.optim.Adam(foley.parameters(), 1e-2)
    latents, losses = torch.randn(2, 4, 1).expand(2, 4, 9), []
    for _ in range(100):
        prepared = foley.prepare(**inputs(), length=9, dropped=torch.tensor([False, True]))
        loss = flow_loss(foley, latents, torch.randn_like(latents), torch.rand(2), prepared)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-20:]) < 0.7 * sum(losses[:20])
    assert foley.empty_clip_feat.grad.abs().sum() > 0


def test_the_audio_vae_reads_weight_normed_files(tmp_path) -> None:
    """The release's container, weight-normed layers in it; the configuration is read off the shapes."""
    vae = shaken(DACVAE(SMALL_DAC))
    state = {}
    for key, tensor in vae.state_dict().items():
        if key.endswith(".weight") and tensor.dim() == 3 and "quant" not in key:
            state[key.replace("weight", "weight_g")] = tensor.flatten(1).norm(dim=1).view(-1, 1, 1) * 2
            state[key.replace("weight", "weight_v")] = tensor
        else:
            state[key] = tensor
    torch.save({"state_dict": state, "metadata": {"kwargs": {"continuous": True}}}, tmp_path / "vae.pth")
    again = load_dac(tmp_path / "vae.pth")
    assert again.config == SMALL_DAC
    weight = "decoder.model.1.block.1.weight"
    assert torch.allclose(again.state_dict()[weight], 2 * vae.state_dict()[weight], atol=1e-6)
    with torch.no_grad():
        latents = again.to_latents(torch.randn(2, 50))
        assert latents.shape == (2, 3, 9)  # 50 samples are 8 latents and a third
        assert again.to_waveform(latents).shape == (2, 54)
    with pytest.raises(UsageError, match="codebooks"):
        DACConfig.from_dict({"continuous": False})


def test_released_audio_vae_is_50_hz() -> None:
    """Sizes that the facts counted: 296.1 M and 75.5 M parameters in 298 tensors, weight-normed."""
    with torch.device("meta"):
        vae = DACVAE(DACConfig())
    normed = sum(isinstance(m, torch.nn.Conv1d | torch.nn.ConvTranspose1d) for m in vae.modules()) - 2
    assert len(vae.state_dict()) + normed == 298
    lengths = sum(
        m.weight.shape[0] for name, m in vae.encoder.named_modules() if isinstance(m, torch.nn.Conv1d)
    )
    assert (sum(p.numel() for p in vae.encoder.parameters()) + lengths) / 1e6 == pytest.approx(
        296.1, abs=0.06
    )
    assert sum(p.numel() for p in vae.decoder.parameters()) / 1e6 == pytest.approx(75.5, abs=0.06)
    assert vae.sample_rate / vae.hop == 50


def test_synchformer_reads_its_half_of_the_file(tmp_path) -> None:
    network = shaken(Synchformer(SMALL_SYNC))
    state = {f"vfeat_extractor.{key}": value for key, value in network.state_dict().items()}
    state |= {"vfeat_extractor.patch_embed.proj.weight": torch.ones(1), "vproj.weight": torch.ones(2)}
    torch.save(state, tmp_path / "sync.pth")
    again = load_synchformer(tmp_path / "sync.pth")
    assert again.config == SMALL_SYNC
    frames = torch.rand(33, 3, 32, 32) * 2 - 1
    found = again.encode(frames, batch=2)
    assert found.shape == (3 * 8, 64)  # segments from 0, 8 and 16; the last frame is not seen
    alone = again(frames[8:24].transpose(0, 1)[None])[0]
    assert torch.allclose(found[8:16], alone, atol=1e-5)
    with pytest.raises(ValueError, match="at least 16"):
        again.encode(frames[:15])


def test_released_synchformer_has_236_tensors() -> None:
    with torch.device("meta"):
        network = Synchformer(SynchformerConfig())
    keys = network.state_dict()
    assert len(keys) == 236 and tuple(keys["pos_embed"].shape) == (1, 197, 768)


def test_devices_and_dtypes_follow_the_weights(tmp_path) -> None:
    foley = shaken(Foley(TINY))
    torch.save(dict(OFFICIAL.export(foley.state_dict(), 16)), tmp_path / "foley.pth")
    half = load_foley(tmp_path / "foley.pth", dtype=torch.bfloat16)
    latents, time = torch.randn(2, 4, 9), torch.tensor([0.2, 0.9])
    with torch.no_grad():
        found = half(latents, time, half.prepare(**inputs(), length=9))
        expected = foley(latents, time, foley.prepare(**inputs(), length=9))
    assert found.dtype == torch.bfloat16
    assert float((found.float() - expected).abs().max()) < 0.1 * float(expected.abs().max())
