"""The causal 3D VAE of HunyuanVideo: pixels to latents and back (facts: the paper's section 4.1)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hy_core.errors import UsageError
from hy_core.vae import inference
from hy_core.vae.config import VAEConfig
from hy_core.vae.layers import NORM_EPS, CausalConv3d, DownBlock, MidBlock, UpBlock
from hy_core.vae.tiling import WHOLE, Tiling, decode_tiles, encode_tiles


@dataclass(frozen=True)
class Posterior:
    """A normal distribution over latents: mean and log-variance, both [B, C, t, h, w]."""

    mean: Tensor
    logvar: Tensor

    @classmethod
    def of(cls, moments: Tensor) -> Posterior:
        """Split the encoder's output [B, 2C, t, h, w]; the log-variance is clamped to [-30, 20]."""
        mean, logvar = moments.chunk(2, dim=1)
        return cls(mean, logvar.clamp(-30.0, 20.0))

    def mode(self) -> Tensor:
        """The most likely latents."""
        return self.mean

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Latents drawn from the distribution; noise comes from the generator's own device in float32."""
        device = self.mean.device if generator is None else generator.device
        noise = torch.randn(self.mean.shape, generator=generator, device=device)
        return self.mean + (0.5 * self.logvar).exp() * noise.to(self.mean)

    def kl(self) -> Tensor:
        """Divergence from the standard normal distribution, summed over all but the batch: [B], nats."""
        return 0.5 * (self.mean.square() + self.logvar.exp() - 1.0 - self.logvar).flatten(1).sum(1)


class Encoder(nn.Module):
    """Pixels [B, 3, T, H, W] to moments before `quant_conv`."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        widths = (config.channels[0], *config.channels)
        self.conv_in = CausalConv3d(config.in_channels, widths[0])
        self.down_blocks = nn.ModuleList(
            DownBlock(a, b, config.layers, config.groups, stride)
            for a, b, stride in zip(widths, config.channels, config.strides(), strict=False)
        )
        self.mid_block = MidBlock(widths[-1], config.groups, config.attention)
        self.conv_norm_out = nn.GroupNorm(config.groups, widths[-1], eps=NORM_EPS)
        self.conv_out = CausalConv3d(widths[-1], 2 * config.latent_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        out: Tensor = self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x))))
        return out


class Decoder(nn.Module):
    """Latents after `post_quant_conv` to pixels [B, 3, T, H, W]."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        channels = config.channels[::-1]
        widths = (channels[0], *channels)
        self.conv_in = CausalConv3d(config.latent_channels, widths[0])
        self.mid_block = MidBlock(widths[0], config.groups, config.attention)
        self.up_blocks = nn.ModuleList(
            UpBlock(a, b, config.layers + 1, config.groups, stride)
            for a, b, stride in zip(widths, channels, config.strides(), strict=False)
        )
        self.conv_norm_out = nn.GroupNorm(config.groups, widths[-1], eps=NORM_EPS)
        self.conv_out = CausalConv3d(widths[-1], config.out_channels)

    def forward(self, z: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(z))
        for block in self.up_blocks:
            x = block(x)
        out: Tensor = self.conv_out(F.silu(self.conv_norm_out(x)))
        return out


class VAE(nn.Module):
    """Causal 3D VAE: `time`k+1 frames to k+1 latent frames, `space` times smaller in height and width.

    Pixels are [B, 3, T, H, W] in [-1, 1]; a picture is a clip of one frame. Latents are [B, C, t, h, w];
    `to_model` and `from_model` change between the VAE's scale and the one the video model works in.

    `encode` and `decode` run the layers as they are written, for training and reading. `encode_inference` and
    `stream` compute the same without gradients, faster and in less memory (`hy_core.vae.inference`).
    """

    def __init__(self, config: VAEConfig | None = None):
        super().__init__()
        self.config = config = config or VAEConfig()
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = nn.Conv3d(2 * config.latent_channels, 2 * config.latent_channels, 1)
        self.post_quant_conv = nn.Conv3d(config.latent_channels, config.latent_channels, 1)

    def encode(self, x: Tensor, tiling: Tiling | None = None) -> Posterior:
        """The distribution over latents [B, C, t, h, w] of pixels; UsageError for a size without latents."""
        return Posterior.of(self.moments(x, tiling))

    def encode_inference(self, x: Tensor, tiling: Tiling | None = None) -> Posterior:
        """As `encode`, without gradients: faster and in less memory."""
        return Posterior.of(self.moments_inference(x, tiling))

    def moments(self, x: Tensor, tiling: Tiling | None = None) -> Tensor:
        """Mean and (unclamped) log-variance of pixels, stacked: [B, 2C, t, h, w]; UsageError as in `encode`."""
        return encode_tiles(self._encode_tile, self._pixels(x), tiling or WHOLE, self.config)

    @torch.no_grad()
    def moments_inference(self, x: Tensor, tiling: Tiling | None = None) -> Tensor:
        """As `moments`, without gradients: faster and in less memory."""
        return encode_tiles(self._encode_tile_inference, self._pixels(x), tiling or WHOLE, self.config)

    def decode(self, z: Tensor, tiling: Tiling | None = None) -> Tensor:
        """Pixels [B, 3, T, H, W] of latents in the VAE's scale, not clamped."""
        z = self._fit("latents", z, self.config.latent_channels)
        return torch.cat(list(decode_tiles(self._decode_tile, z, tiling or WHOLE, self.config)), dim=2)

    def decode_inference(self, z: Tensor, tiling: Tiling | None = None) -> Tensor:
        """As `decode`, without gradients: faster and in less memory."""
        return torch.cat(list(self.stream(z, tiling)), dim=2)

    def stream(self, z: Tensor, tiling: Tiling | None = Tiling.OFFICIAL) -> Iterator[Tensor]:
        """The frames of `decode_inference` in time order, in chunks: memory follows the tile, not the clip.

        Without temporal tiles there is one chunk: normalisation spans the clip.
        """
        z = self._fit("latents", z, self.config.latent_channels)
        return decode_tiles(self._decode_tile_inference, z, tiling or WHOLE, self.config)

    def _pixels(self, x: Tensor) -> Tensor:
        x = self._fit("pixels", x, self.config.in_channels)
        self.config.latent_size(x.shape[2], x.shape[3], x.shape[4])
        return x

    def _encode_tile(self, x: Tensor) -> Tensor:
        moments: Tensor = self.quant_conv(self.encoder(x))
        return moments

    def _encode_tile_inference(self, x: Tensor) -> Tensor:
        moments: Tensor = self.quant_conv(inference.encode(self.encoder, x))
        return moments

    def _decode_tile(self, z: Tensor) -> Tensor:
        pixels: Tensor = self.decoder(self.post_quant_conv(z))
        return pixels

    @torch.no_grad()
    def _decode_tile_inference(self, z: Tensor) -> Tensor:
        return inference.decode(self.decoder, self.post_quant_conv(z))

    def to_model(self, z: Tensor) -> Tensor:
        """Latents as the video model sees them."""
        return z * self.config.scaling

    def from_model(self, z: Tensor) -> Tensor:
        """Latents as the VAE sees them."""
        return z / self.config.scaling

    def _fit(self, what: str, x: Tensor, channels: int) -> Tensor:
        """x in the weights' precision, or what is wrong with it."""
        if x.ndim != 5 or x.shape[1] != channels:
            raise UsageError(
                f"{what} have shape {list(x.shape)}, the VAE takes [batch, {channels}, time, height, width]",
                hint="add the missing axes; a picture has one frame",
            )
        if not x.is_floating_point():
            raise UsageError(
                f"{what} are {str(x.dtype).removeprefix('torch.')}, the VAE takes floats",
                hint="pixels 0..255 become pixels / 127.5 - 1",
            )
        return x.to(self.quant_conv.weight.dtype)
