"""The audio VAE of Foley: waveforms at 48 kHz to 128 channels at 50 Hz and back.

It is the encoder and decoder of the Descript Audio Codec with a Gaussian in place of its quantiser. Layers are
plain here; weight-normed checkpoints are folded while loading (`load_dac`). B rows, C latent channels, N latents,
T samples.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from hy_core.errors import UsageError
from hy_core.tables import bounded, check_fields, from_table
from torch import Tensor, nn

from hy_audio.codec.gaussian import Gaussian
from hy_audio.dit.config import MAX_WIDTH


@dataclass(frozen=True)
class DACConfig:
    """Shape of a continuous DAC; the defaults are the released `vae_128d_48k`."""

    encoder_dim: int = bounded(128, 1, MAX_WIDTH)
    encoder_rates: tuple[int, ...] = bounded((2, 3, 4, 5, 8), 1, 1024)
    latent_dim: int = bounded(128, 1, MAX_WIDTH)
    decoder_dim: int = bounded(2048, 1, MAX_WIDTH)
    decoder_rates: tuple[int, ...] = bounded((8, 5, 4, 3, 2), 1, 1024)
    sample_rate: int = bounded(48000, 1000, 192000)

    def __post_init__(self) -> None:
        check_fields(self, "DAC config")
        for name in ("encoder_rates", "decoder_rates"):
            rates = getattr(self, name)
            if not 0 < len(rates) <= 16 or math.prod(rates) > 1 << 16:
                raise UsageError(
                    f"DAC config: {name} = {list(rates)[:20]}", "1 to 16 rates of at most 65536 in all"
                )
        if (
            self.encoder_dim << len(self.encoder_rates) > MAX_WIDTH
            or self.decoder_dim >> len(self.decoder_rates) < 1
        ):
            raise UsageError(
                f"DAC config: encoder_dim = {self.encoder_dim} and decoder_dim = {self.decoder_dim} don't fit",
                "widths double at each rate of the encoder and are halved at each of the decoder",
            )

    @property
    def hop(self) -> int:
        """Samples of one latent."""
        return math.prod(self.encoder_rates)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> DACConfig:
        """Read the arguments of the official class; UsageError for a quantised DAC."""
        if not data.get("continuous", False):
            raise UsageError("this is a DAC with codebooks", hint="Foley needs the continuous one")
        known = {field.name for field in dataclasses.fields(cls)}
        found = {name: value for name, value in data.items() if name in known and value is not None}
        official = {"encoder_dim": 64, "encoder_rates": (2, 4, 8, 8), "latent_dim": 1}
        official |= {"decoder_dim": 1536, "decoder_rates": (8, 8, 4, 2), "sample_rate": 44100}
        config = from_table(cls, official | found, "DAC config")
        if "latent_dim" in found:
            return config
        return dataclasses.replace(config, latent_dim=config.encoder_dim << len(config.encoder_rates))


class Snake(nn.Module):
    """x + sin^2(alpha x) / alpha, an activation that can ring."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + (self.alpha + 1e-9).reciprocal() * torch.sin(self.alpha * x).square()


class Residual(nn.Module):
    """A dilated convolution of seven taps and one of one, added to what they came from."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            Snake(channels),
            nn.Conv1d(channels, channels, 7, dilation=dilation, padding=3 * dilation),
            Snake(channels),
            nn.Conv1d(channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)


class Stage(nn.Module):
    """Layers under the name `block`, as the checkpoints have them."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class Encoder(Stage):
    """[B,1,T] to [B,C,T/hop]."""

    def __init__(self, config: DACConfig) -> None:
        width = config.encoder_dim
        layers: list[nn.Module] = [nn.Conv1d(1, width, 7, padding=3)]
        for rate in config.encoder_rates:
            down = nn.Conv1d(width, 2 * width, 2 * rate, stride=rate, padding=math.ceil(rate / 2))
            layers.append(Stage(*(Residual(width, d) for d in (1, 3, 9)), Snake(width), down))
            width *= 2
        layers += [Snake(width), nn.Conv1d(width, config.latent_dim, 3, padding=1)]
        super().__init__(*layers)


class Decoder(nn.Module):
    """[B,C,N] to [B,1,N*hop] in [-1, 1]."""

    def __init__(self, config: DACConfig) -> None:
        super().__init__()
        width = config.decoder_dim
        layers: list[nn.Module] = [nn.Conv1d(config.latent_dim, width, 7, padding=3)]
        for stage, rate in enumerate(config.decoder_rates):
            width, out = config.decoder_dim // 2**stage, config.decoder_dim // 2 ** (stage + 1)
            up = nn.ConvTranspose1d(
                width, out, 2 * rate, stride=rate, padding=math.ceil(rate / 2), output_padding=rate % 2
            )
            layers.append(Stage(Snake(width), up, *(Residual(out, d) for d in (1, 3, 9))))
            width = out
        layers += [Snake(width), nn.Conv1d(width, 1, 7, padding=3), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class DACVAE(nn.Module):
    """Waveforms [B,1,T] in [-1, 1] to latents [B,C,N] and back; latents have no scale factor.

    `to_latents` and `to_waveform` make it a `Codec`.
    """

    def __init__(self, config: DACConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.quant_conv = nn.Conv1d(config.latent_dim, 2 * config.latent_dim, 1)
        self.post_quant_conv = nn.Conv1d(config.latent_dim, config.latent_dim, 1)
        self.decoder = Decoder(config)

    def encode(self, waveform: Tensor) -> Gaussian:
        """What the network says of T samples; make T a multiple of the hop to get T / hop latents."""
        return Gaussian(self.quant_conv(self.encoder(waveform)))

    def decode(self, latents: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(latents))

    @property
    def sample_rate(self) -> int:
        return self.config.sample_rate

    @property
    def hop(self) -> int:
        return self.config.hop

    @property
    def channels(self) -> int:
        return self.config.latent_dim

    def to_latents(self, waveform: Tensor) -> Tensor:
        """Mean latents [B,C,N] of waveforms [B,T], silence added at the end up to a whole latent."""
        return self.encode(F.pad(waveform, (0, -waveform.shape[-1] % self.hop))[:, None]).mean

    def to_waveform(self, latents: Tensor) -> Tensor:
        """Waveforms [B,N*hop] in [-1, 1] of latents [B,C,N]."""
        return self.decode(latents)[:, 0]
