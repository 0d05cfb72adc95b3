"""Log-mel spectrograms as HiFi-GAN defines them.

The waveform is reflected by (n_fft - hop) / 2 samples at both ends, so that T samples give T / hop frames;
magnitudes are sqrt(re^2 + im^2 + 1e-9), the filters are Slaney's, and the logarithm is natural, from 1e-5 on
(jik876/hifi-gan).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from hy_core.errors import MissingError, UsageError
from hy_core.tables import bounded, check_fields, from_table
from torch import Tensor, nn


@dataclass(frozen=True)
class MelConfig:
    """Which spectrogram: rate in Hz, sizes in samples, `fmax` None for half the rate."""

    sample_rate: int = bounded(16000, 1000, 192000)
    bins: int = bounded(80, 1, 4096)
    n_fft: int = bounded(1024, 4, 1 << 16)
    window: int = bounded(1024, 2, 1 << 16)
    hop: int = bounded(256, 1, 1 << 16)
    fmin: float = bounded(0.0, 0, 96000)
    fmax: float | None = bounded(8000.0, 1, 192000)

    #: "16k" and "44k" are those of the field; "22k" is that of the published HiFi-GANs.
    named: ClassVar[Mapping[str, MelConfig]]

    def __post_init__(self) -> None:
        check_fields(self, "mel config")
        if not 0 < self.hop <= self.window <= self.n_fft:
            raise UsageError(
                f"no spectrogram has hop {self.hop}, window {self.window} and FFT {self.n_fft}",
                hint="hop <= window <= n_fft",
            )

    def whole_band(self) -> MelConfig:
        """The same up to half the sample rate: what the loss compares."""
        return dataclasses.replace(self, fmax=None)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> MelConfig:
        """Read a config of ours, or the config.json beside a HiFi-GAN, detected by its keys."""
        if "num_mels" in data:
            names = {
                "sampling_rate": "sample_rate",
                "num_mels": "bins",
                "n_fft": "n_fft",
                "win_size": "window",
                "hop_size": "hop",
                "fmin": "fmin",
                "fmax": "fmax",
            }
            data = {ours: data[theirs] for theirs, ours in names.items() if theirs in data}
        return from_table(cls, data, "mel config")


MelConfig.named = {
    "16k": MelConfig(),
    "22k": MelConfig(sample_rate=22050),
    "44k": MelConfig(sample_rate=44100, bins=128, n_fft=2048, window=2048, hop=512, fmax=22050.0),
    "48k": MelConfig(sample_rate=48000, bins=128, n_fft=2048, window=2048, hop=512, fmax=22050.0),
}


class LogMel(nn.Module):
    """Waveforms [B,T] in [-1, 1] to log-mel spectrograms [B,bins,T/hop], in fp32."""

    def __init__(self, config: MelConfig) -> None:
        super().__init__()
        if (config.n_fft - config.hop) % 2:
            raise UsageError(
                f"frames of {config.hop} samples can't stand in the middle of {config.n_fft}",
                hint="n_fft - hop is even",
            )
        self.config = config
        self.filters: Tensor
        self.window: Tensor
        self.register_buffer("filters", filterbank(config), persistent=False)
        self.register_buffer("window", torch.hann_window(config.window), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """ValueError for a waveform too short to be reflected: up to (n_fft - hop) / 2 samples."""
        config = self.config
        edge = (config.n_fft - config.hop) // 2
        if waveform.shape[-1] <= edge:
            raise ValueError(f"a spectrogram needs more than {edge} samples, not {waveform.shape[-1]}")
        with torch.autocast(waveform.device.type, enabled=False):
            padded = F.pad(waveform.float()[:, None], (edge, edge), mode="reflect")[:, 0]
            spectrum = torch.stft(
                padded,
                config.n_fft,
                hop_length=config.hop,
                win_length=config.window,
                window=self.window.float(),
                center=False,
                return_complex=True,
            )
            magnitude = (spectrum.real.square() + spectrum.imag.square() + 1e-9).sqrt()
            return (self.filters.float() @ magnitude).clamp(min=1e-5).log()


def filterbank(config: MelConfig) -> Tensor:
    """Slaney's triangular filters [bins, n_fft / 2 + 1], each of unit area, fp32."""
    try:
        from librosa.filters import mel
    except ImportError:
        raise MissingError("mel spectrograms need librosa", hint="pip install hy-audio") from None
    filters = mel(
        sr=config.sample_rate,
        n_fft=config.n_fft,
        n_mels=config.bins,
        fmin=config.fmin,
        fmax=config.fmax,
    )
    return torch.from_numpy(filters)
