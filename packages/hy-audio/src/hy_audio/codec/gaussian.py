"""What an audio VAE says of its input: a normal distribution for each latent."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Gaussian:
    """`moments` [B,2C,...] are mean and log variance along the channels; the latter is held to [-30, 20]."""

    moments: Tensor

    @property
    def mean(self) -> Tensor:
        return self.moments.chunk(2, dim=1)[0]

    @property
    def log_variance(self) -> Tensor:
        return self.moments.chunk(2, dim=1)[1].clamp(-30, 20)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One draw; the generator is that of the moments' device."""
        mean = self.mean
        noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        return mean + torch.exp(0.5 * self.log_variance) * noise

    def kl_divergence(self) -> Tensor:
        """Mean over all latents of the divergence from a standard normal: a number."""
        log_variance = self.log_variance
        return 0.5 * (self.mean.square() + log_variance.exp() - 1 - log_variance).mean()
