"""The audio VAE: log-mel spectrograms to latents and back.

One-dimensional: the mel bins are channels, time is shortened by a power of two. Norms act on one frame's channels
at a time, so nothing is averaged over a clip, and a window of latents decodes to what the whole clip has there but
for the reach of the convolutions at its ends. B rows, M mel bins, N frames, C latent channels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from hy_core.errors import UsageError
from hy_core.tables import bounded, check_fields, from_table
from torch import Tensor, nn

from hy_audio.codec.gaussian import Gaussian
from hy_audio.weights import ConfiguredNetwork


@dataclass(frozen=True)
class MelVAEConfig:
    """Shape of a mel VAE; `shorten` is the number of frames of one latent, a power of two.

    Log-mels enter as (mel - mel_mean) / mel_std, which brings them near unit size.
    """

    bins: int = bounded(80, 1, 4096)
    channels: int = bounded(20, 1, 4096)
    width: int = bounded(256, 1, 1 << 14)
    blocks: int = bounded(2, 0, 256)
    shorten: int = bounded(2, 1, 256)
    kernel: int = bounded(3, 1, 255)
    mel_mean: float = bounded(-5.0, -1000, 1000)
    mel_std: float = bounded(3.0, 1e-6, 1000)

    named: ClassVar[Mapping[str, MelVAEConfig]]

    def __post_init__(self) -> None:
        check_fields(self, "mel VAE config")
        if self.kernel % 2 == 0:
            raise UsageError(f"mel VAE config: kernel = {self.kernel}", "use an odd number")
        if self.shorten & (self.shorten - 1):
            raise UsageError(f"a mel VAE can't shorten by {self.shorten}", hint="use a power of two")

    @property
    def stages(self) -> int:
        return self.shorten.bit_length() - 1

    def to_json(self) -> dict[str, Any]:
        """Return what `from_dict` reads, with plain JSON types only."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> MelVAEConfig:
        """Make a configuration of a table; a one-line `UsageError` for unknown keys, wrong types and ranges."""
        return from_table(cls, data, "mel VAE config")


MelVAEConfig.named = {
    "pocket": MelVAEConfig(width=96),
    "16k": MelVAEConfig(),
    "44k": MelVAEConfig(bins=128, channels=40, width=512),
    "48k": MelVAEConfig(bins=128, channels=40, width=512),
}


class FrameNorm(nn.Module):
    """Scale each frame's channels [B,W,N] to unit root mean square, then by a weight."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.transpose(1, 2), self.weight.shape, self.weight, 1e-6).transpose(1, 2)


class Residual(nn.Module):
    """Norm, SiLU and convolution twice, added to what they came from; nothing at first."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = FrameNorm(width), FrameNorm(width)
        self.conv1 = nn.Conv1d(width, width, kernel, padding=kernel // 2)
        self.conv2 = nn.Conv1d(width, width, kernel, padding=kernel // 2)
        nn.init.zeros_(self.conv2.weight)
        assert self.conv2.bias is not None
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))


class MelVAE(ConfiguredNetwork):
    """Log-mels [B,M,N] to latents [B,C,N / shorten] and back."""

    Config = MelVAEConfig

    def __init__(self, config: MelVAEConfig) -> None:
        super().__init__(config)
        width, kernel = config.width, config.kernel

        def blocks() -> list[nn.Module]:
            return [Residual(width, kernel) for _ in range(config.blocks)]

        encoder: list[nn.Module] = [nn.Conv1d(config.bins, width, kernel, padding=kernel // 2), *blocks()]
        decoder: list[nn.Module] = [nn.Conv1d(config.channels, width, kernel, padding=kernel // 2), *blocks()]
        for _ in range(config.stages):
            encoder += [nn.Conv1d(width, width, 4, stride=2, padding=1), *blocks()]
            decoder += [nn.ConvTranspose1d(width, width, 4, stride=2, padding=1), *blocks()]
        encoder += [FrameNorm(width), nn.SiLU(), nn.Conv1d(width, 2 * config.channels, 1)]
        decoder += [FrameNorm(width), nn.SiLU(), nn.Conv1d(width, config.bins, kernel, padding=kernel // 2)]
        self.encoder, self.decoder = nn.Sequential(*encoder), nn.Sequential(*decoder)
        #: What latents are normalised by for the DiT, measured after training (`measure`).
        self.latent_mean: Tensor
        self.latent_std: Tensor
        self.register_buffer("latent_mean", torch.zeros(config.channels))
        self.register_buffer("latent_std", torch.ones(config.channels))

    def encode(self, mel: Tensor) -> Gaussian:
        """The last frame is repeated up to a whole number of latents."""
        config = self.config
        short = -mel.shape[-1] % config.shorten
        mel = torch.cat((mel, mel[..., -1:].expand(-1, -1, short)), dim=-1) if short else mel
        return Gaussian(self.encoder((mel - config.mel_mean) / config.mel_std))

    def decode(self, latents: Tensor) -> Tensor:
        """Log-mels [B,M,N*shorten] of latents as `encode` gives them."""
        return self.decoder(latents) * self.config.mel_std + self.config.mel_mean

    def to_model(self, latents: Tensor) -> Tensor:
        """Latents of zero mean and unit variance in each channel, as the DiT learns them."""
        return (latents - self.latent_mean[:, None]) / self.latent_std[:, None]

    def from_model(self, latents: Tensor) -> Tensor:
        """Undo `to_model`."""
        return latents * self.latent_std[:, None] + self.latent_mean[:, None]

    @torch.no_grad()
    def measure(self, latents: Tensor) -> None:
        """Set the normalisation from latents [B,C,N] of the training set."""
        self.latent_mean.copy_(latents.mean(dim=(0, 2)))
        self.latent_std.copy_(latents.std(dim=(0, 2)).clamp(min=1e-6))
