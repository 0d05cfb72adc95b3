"""Train the mel VAE: log-mels of clips' sounds to latents and back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from hy_core.errors import UsageError
from hy_core.tables import from_table
from hy_core.training import Recipe
from torch import Tensor

from hy_audio.codec.codec import MelCodec
from hy_audio.codec.losses import log_mel_distance, mel_vae_loss
from hy_audio.codec.mel import LogMel, MelConfig
from hy_audio.codec.vae import MelVAE, MelVAEConfig
from hy_audio.training.sounds import MEASURING, ClipData, SoundObjective
from hy_audio.weights import save_network

_MEASURED = 16  # batches that the latents' normalisation is measured on


@dataclass(frozen=True)
class MelVAEData(ClipData):
    """`mel`: fields of `MelConfig`, 16 kHz if not given; `seconds` of each clip are heard."""

    mel: MelConfig = field(default_factory=MelConfig)
    seconds: float = 1.024


@dataclass(frozen=True)
class MelVAELoss:
    """Weight of the divergence beside the L1 of log-mels."""

    kl_weight: float = 1e-3


class MelVAEObjective(SoundObjective[Tensor]):
    """Reconstruction of log-mels."""

    model: MelVAE
    data: MelVAEData

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        super().__init__(recipe, folder)
        self.data = from_table(MelVAEData, recipe.data, "data")
        self.options = from_table(MelVAELoss, recipe.options, "options")
        config = from_table(MelVAEConfig, recipe.model, "model")
        if config.bins != self.data.mel.bins:
            raise UsageError(
                f"model.bins = {config.bins}, but data.mel.bins = {self.data.mel.bins}",
                "they must be the same",
            )
        torch.manual_seed(recipe.seed)
        self.model = MelVAE(config)
        self.mel = LogMel(self.data.mel)
        self.open_datasets(self.data, self.data.mel.sample_rate, self.data.seconds)

    def draw(self, number: int) -> Tensor:
        """Draw waveforms [B, T]."""
        return self.draw_waveforms(number)

    def loss(self, batch: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of waveforms [B, T], a scalar tensor, and its parts as numbers."""
        mel = self._mel(batch)
        posterior = self.model.encode(mel)
        made = self.model.decode(posterior.sample(generator))[..., : mel.shape[-1]]
        parts = mel_vae_loss(mel, made, posterior, self.options.kl_weight)
        return parts["total"], {name: parts[name].item() for name in ("mel", "kl")}

    def evaluate(self, clips: int = 16) -> dict[str, float]:
        """L1 of held-out log-mels, from the mean."""
        mel = self._mel(self.heldout_waveforms(clips))
        return {"mel": log_mel_distance(mel, self.model.decode(self.model.encode(mel).mean))}

    def export(self, folder: Path) -> None:
        """Write the VAE in fp16; its latents are normalised by what training clips have."""
        batches = [self.batch(step, rank=MEASURING) for step in range(_MEASURED)]
        self.model.measure(torch.cat([self.model.encode(self._mel(one)).mean for one in batches]))
        folder.mkdir(parents=True, exist_ok=True)
        save_network(self.model, folder / MelCodec.VAE, torch.float16)

    def _mel(self, waveform: Tensor) -> Tensor:
        where = next(self.model.parameters()).device
        return self.mel.to(where)(waveform.to(where))
