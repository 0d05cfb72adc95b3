"""HiFi-GAN's two discriminators: one folds the waveform at several periods, one hears it at several scales.

Both take waveforms [B,1,T] and return a score and the layers' outputs for each of their parts. Parameter names are
those of jik876/hifi-gan, whose `do_XXXXXXXX` files load into them as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import spectral_norm
from torch.nn.utils.parametrizations import weight_norm

SLOPE = 0.1


@dataclass
class DiscriminatorOutput:
    """What one part of a discriminator makes of a waveform: scores [B,n], and every layer's output."""

    score: Tensor
    layers: list[Tensor]


class PeriodPart(nn.Module):
    """Fold the waveform into rows of `period` samples and look along the columns."""

    def __init__(self, period: int, scale: float = 1.0) -> None:
        super().__init__()
        self.period = period
        widths = [1, *(max(1, int(width * scale)) for width in (32, 128, 512, 1024, 1024))]
        self.convs = nn.ModuleList(
            weight_norm(nn.Conv2d(a, b, (5, 1), (3 if i < 4 else 1, 1), padding=(2, 0)))
            for i, (a, b) in enumerate(zip(widths, widths[1:], strict=False))
        )
        self.conv_post = weight_norm(nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, x: Tensor) -> DiscriminatorOutput:
        """Score waveforms [B, 1, T]; T is padded by reflection to whole periods."""
        x = F.pad(x, (0, -x.shape[-1] % self.period), mode="reflect").unflatten(-1, (-1, self.period))
        return _apply_layers(self.convs, self.conv_post, x)


class ScalePart(nn.Module):
    """Score the waveform with long, grouped convolutions."""

    def __init__(self, norm: Callable[[nn.Module], nn.Module], scale: float = 1.0) -> None:
        super().__init__()
        widths = [
            1,
            *(max(16, int(width * scale) // 16 * 16) for width in (128, 128, 256, 512, 1024, 1024, 1024)),
        ]
        kernels, strides, groups = (
            (15, 41, 41, 41, 41, 41, 5),
            (1, 2, 2, 4, 4, 1, 1),
            (1, 4, 16, 16, 16, 16, 1),
        )
        self.convs = nn.ModuleList(
            norm(nn.Conv1d(a, b, kernel, stride, groups=group, padding=kernel // 2))
            for a, b, kernel, stride, group in zip(widths, widths[1:], kernels, strides, groups, strict=False)
        )
        self.conv_post = norm(nn.Conv1d(widths[-1], 1, 3, padding=1))

    def forward(self, x: Tensor) -> DiscriminatorOutput:
        """Score waveforms [B, 1, T]."""
        return _apply_layers(self.convs, self.conv_post, x)


class MultiPeriod(nn.Module):
    """The multi-period discriminator. `scale` multiplies its widths (1 is the published size)."""

    def __init__(self, periods: tuple[int, ...] = (2, 3, 5, 7, 11), scale: float = 1.0) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(PeriodPart(period, scale) for period in periods)

    def forward(self, waveform: Tensor) -> list[DiscriminatorOutput]:
        """Score waveforms [B, 1, T] by every period."""
        return [part(waveform) for part in self.discriminators]


class MultiScale(nn.Module):
    """The multi-scale discriminator: the waveform itself, and its averages over two and four samples."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList(
            ScalePart(norm, scale) for norm in (spectral_norm, weight_norm, weight_norm)
        )

    def forward(self, waveform: Tensor) -> list[DiscriminatorOutput]:
        """Score waveforms [B, 1, T] at every scale."""
        outputs = []
        for number, part in enumerate(self.discriminators):
            if number:
                waveform = F.avg_pool1d(waveform, 4, 2, padding=2)
            outputs.append(part(waveform))
        return outputs


def _apply_layers(convs: nn.ModuleList, post: nn.Module, x: Tensor) -> DiscriminatorOutput:
    layers = []
    for conv in convs:
        x = F.leaky_relu(conv(x), SLOPE)
        layers.append(x)
    x = post(x)
    return DiscriminatorOutput(x.flatten(1), [*layers, x])
