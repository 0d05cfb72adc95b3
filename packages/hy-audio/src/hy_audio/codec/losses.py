"""What the audio VAE and the vocoder are trained with: plain functions of tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hy_audio.codec.discriminators import Heard
from hy_audio.codec.gaussian import Gaussian

#: Weights of HiFi-GAN's losses (jik876/hifi-gan).
MEL_WEIGHT, FEATURE_WEIGHT = 45.0, 2.0


def discriminator_loss(real: Sequence[Heard], made: Sequence[Heard]) -> Tensor:
    """Least squares: real waveforms should score 1, made ones 0; summed over a discriminator's parts."""
    return sum(
        (1 - r.score).square().mean() + m.score.square().mean() for r, m in zip(real, made, strict=True)
    )


def adversarial_loss(made: Sequence[Heard]) -> Tensor:
    """Least squares, the generator's side: what it makes should score 1."""
    return sum((1 - part.score).square().mean() for part in made)


def feature_loss(real: Sequence[Heard], made: Sequence[Heard]) -> Tensor:
    """Mean distance of all layers' outputs, summed over layers and parts, unweighted."""
    return sum(
        (theirs.detach() - ours).abs().mean()
        for r, m in zip(real, made, strict=True)
        for theirs, ours in zip(r.layers, m.layers, strict=True)
    )


def vocoder_loss(
    real_mels: Sequence[Tensor],
    made_mels: Sequence[Tensor],
    real: Sequence[Sequence[Heard]] = (),
    made: Sequence[Sequence[Heard]] = (),
) -> dict[str, Tensor]:
    """HiFi-GAN's generator loss, "total" and its parts, weighted: mel x 45, features x 2, adversarial x 1.

    The spectrograms [B,M,N], one published or several, of which the mean counts, are those of `MelConfig.whole_band`;
    `real` and `made` hold what each discriminator heard. A part without any discriminator is 0.
    """
    distances = [(one - other).abs().mean() for one, other in zip(real_mels, made_mels, strict=True)]
    none = torch.zeros((), device=distances[0].device)
    parts = {
        "mel": MEL_WEIGHT * sum(distances) / len(distances),
        "features": FEATURE_WEIGHT * sum((feature_loss(r, m) for r, m in zip(real, made, strict=True)), none),
        "adversarial": sum((adversarial_loss(m) for m in made), none),
    }
    return {"total": sum(parts.values()), **parts}


def mel_vae_loss(
    mel: Tensor, made: Tensor, posterior: Gaussian, divergence_weight: float = 1e-3
) -> dict[str, Tensor]:
    """The mel VAE's loss, "total" and its parts: L1 of log-mels [B,M,N], and the divergence, weighted."""
    parts = {
        "mel": (mel - made).abs().mean(),
        "divergence": divergence_weight * posterior.divergence(),
    }
    return {"total": sum(parts.values()), **parts}


def log_mel_distance(first: Tensor, second: Tensor) -> float:
    """Mean absolute difference of two log-mels [B,M,N] over the frames that both have: a number."""
    frames = min(first.shape[-1], second.shape[-1])
    with torch.no_grad():
        return float((first[..., :frames] - second[..., :frames]).abs().mean())
