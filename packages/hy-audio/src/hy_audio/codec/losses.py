"""What the audio VAE and the vocoder are trained with: plain functions of tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from hy_audio.codec.discriminators import DiscriminatorOutput
from hy_audio.codec.gaussian import Gaussian

#: Weights of HiFi-GAN's losses (jik876/hifi-gan).
MEL_WEIGHT, FEATURE_WEIGHT = 45.0, 2.0


def total(parts: Iterable[Tensor], start: Tensor | None = None) -> Tensor:
    """Return the sum of numbers [], added to `start` in their order; `ValueError` for none at all."""
    result = start
    for part in parts:
        result = part if result is None else result + part
    if result is None:
        raise ValueError("no parts of a loss")
    return result


def discriminator_loss(
    real: Sequence[DiscriminatorOutput], generated: Sequence[DiscriminatorOutput]
) -> Tensor:
    """Least squares: real waveforms should score 1, generated ones 0; summed over a discriminator's parts."""
    return total(
        (1 - r.score).square().mean() + m.score.square().mean() for r, m in zip(real, generated, strict=True)
    )


def adversarial_loss(generated: Sequence[DiscriminatorOutput]) -> Tensor:
    """Least squares, the generator's side: what it makes should score 1."""
    return total((1 - part.score).square().mean() for part in generated)


def feature_loss(real: Sequence[DiscriminatorOutput], generated: Sequence[DiscriminatorOutput]) -> Tensor:
    """Mean distance of all layers' outputs, summed over layers and parts, unweighted."""
    return total(
        (theirs.detach() - ours).abs().mean()
        for r, m in zip(real, generated, strict=True)
        for theirs, ours in zip(r.layers, m.layers, strict=True)
    )


def vocoder_loss(
    real_mels: Sequence[Tensor],
    generated_mels: Sequence[Tensor],
    real: Sequence[Sequence[DiscriminatorOutput]] = (),
    generated: Sequence[Sequence[DiscriminatorOutput]] = (),
) -> dict[str, Tensor]:
    """HiFi-GAN's generator loss, "total" and its parts, weighted: mel x 45, features x 2, adversarial x 1.

    The spectrograms [B,M,N], one published or several, of which the mean counts, are those of `MelConfig.whole_band`;
    `real` and `generated` hold what each discriminator outputs. A part without any discriminator is 0.
    """
    distances = [(one - other).abs().mean() for one, other in zip(real_mels, generated_mels, strict=True)]
    none = torch.zeros((), device=distances[0].device)
    parts = {
        "mel": MEL_WEIGHT * total(distances) / len(distances),
        "features": FEATURE_WEIGHT
        * total((feature_loss(r, m) for r, m in zip(real, generated, strict=True)), none),
        "adversarial": total((adversarial_loss(m) for m in generated), none),
    }
    return {"total": total(parts.values()), **parts}


def mel_vae_loss(
    mel: Tensor, generated: Tensor, posterior: Gaussian, kl_weight: float = 1e-3
) -> dict[str, Tensor]:
    """The mel VAE's loss, "total" and its parts: L1 of log-mels [B,M,N], and the divergence, weighted."""
    parts = {
        "mel": (mel - generated).abs().mean(),
        "kl": kl_weight * posterior.kl_divergence(),
    }
    return {"total": total(parts.values()), **parts}


def log_mel_distance(first: Tensor, second: Tensor) -> float:
    """Mean absolute difference of two log-mels [B,M,N] over the frames that both have: a number."""
    frames = min(first.shape[-1], second.shape[-1])
    with torch.no_grad():
        return float((first[..., :frames] - second[..., :frames]).abs().mean())
