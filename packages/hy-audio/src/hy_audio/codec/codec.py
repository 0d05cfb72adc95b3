"""What a DiT's sound is made of: a codec between waveforms and latents.

B rows, T samples, C channels, N latents.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
from hy_core.errors import UsageError
from torch import Tensor, nn

from hy_audio.codec.mel import LogMel
from hy_audio.codec.vae import MelVAE
from hy_audio.codec.vocoder import Vocoder, load_vocoder, save_vocoder
from hy_audio.weights import load_network, save_network


class Codec(Protocol):
    """Between waveforms [B,T] in [-1, 1] and latents [B,C,N] as a DiT learns them; mono.

    `hop` is the number of samples of one latent.
    """

    @property
    def sample_rate(self) -> int: ...
    @property
    def hop(self) -> int: ...
    @property
    def channels(self) -> int: ...

    def to_latents(self, waveform: Tensor) -> Tensor: ...
    def to_waveform(self, latents: Tensor) -> Tensor: ...


class MelCodec(nn.Module):
    """The paper's codec: waveform, mel spectrogram, VAE; and back through VAE and vocoder."""

    #: Files of a codec's folder.
    VAE, VOCODER = "vae.safetensors", "vocoder.safetensors"

    def __init__(self, vae: MelVAE, vocoder: Vocoder) -> None:
        super().__init__()
        if vae.config.bins != vocoder.config.mel.bins:
            raise UsageError(
                f"the mel VAE has {vae.config.bins} bins and the vocoder {vocoder.config.mel.bins}",
                hint="they belong to different codecs",
            )
        self.vae, self.vocoder = vae, vocoder
        self.mel = LogMel(vocoder.config.mel)

    @property
    def sample_rate(self) -> int:
        return self.vocoder.config.mel.sample_rate

    @property
    def hop(self) -> int:
        return self.vocoder.config.mel.hop * self.vae.config.shorten

    @property
    def channels(self) -> int:
        return self.vae.config.channels

    def to_latents(self, waveform: Tensor) -> Tensor:
        """Return the normalised mean latents of waveforms; silence is added at the end up to a whole latent."""
        edge = self.mel.config.n_fft  # a clip shorter than a window is silence from there on
        short = max(-waveform.shape[-1] % self.hop, edge - waveform.shape[-1])
        short += -(waveform.shape[-1] + short) % self.hop
        mel = self.mel(torch.nn.functional.pad(waveform, (0, short)))
        return self.vae.to_model(self.vae.encode(mel).mean)

    def to_waveform(self, latents: Tensor) -> Tensor:
        return self.vocoder(self.vae.decode(self.vae.from_model(latents)))

    def save(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write both networks with their configurations into a folder; see `to_storage_dtype` for `dtype`."""
        save_network(self.vae, Path(folder) / self.VAE, dtype)
        save_vocoder(self.vocoder, Path(folder) / self.VOCODER, dtype)

    @classmethod
    def load(
        cls, folder: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
    ) -> MelCodec:
        """Read a folder that `save` wrote. MissingError or HyError if a part is missing or doesn't fit."""
        folder = Path(folder)
        vae = load_network(MelVAE, folder / cls.VAE, device, dtype)
        codec = cls(vae, load_vocoder(folder / cls.VOCODER, device, dtype))
        codec.mel.to(device)
        return codec.eval()
