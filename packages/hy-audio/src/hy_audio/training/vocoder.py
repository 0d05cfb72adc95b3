"""Train HiFi-GAN as published: log-mel L1, feature matching, least squares, two kinds of discriminators."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hy_core.objective import Recipe
from hy_core.tables import from_table
from torch import Tensor, nn

from hy_audio.codec.codec import MelCodec
from hy_audio.codec.discriminators import MultiPeriod, MultiScale
from hy_audio.codec.losses import discriminator_loss, log_mel_distance, vocoder_loss
from hy_audio.codec.mel import LogMel
from hy_audio.codec.vocoder import Vocoder, VocoderConfig, save_vocoder
from hy_audio.training.sounds import ClipData, SoundObjective


@dataclass(frozen=True)
class VocoderData(ClipData):
    """`seconds` of each clip are heard; 8192 samples at 16 kHz as published."""

    seconds: float = 0.512


@dataclass(frozen=True)
class VocoderLoss:
    """`width` multiplies the discriminators' channels; 1 is the published size, 71 M parameters."""

    width: float = 1.0


class VocoderObjective(SoundObjective):
    """Waveforms from their log-mels, against discriminators.

    The weights are normed while they learn and written folded. `[model]` holds fields of `VocoderConfig`, `[model.mel]`
    of `MelConfig`.
    """

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        super().__init__(recipe, folder)
        self.data = from_table(VocoderData, recipe.data, "data")
        options = from_table(VocoderLoss, recipe.options, "options")
        config = from_table(VocoderConfig, recipe.model, "model")
        torch.manual_seed(recipe.seed)
        self.model = Vocoder(config).normalise_weights()
        self.critic = nn.ModuleList([MultiPeriod(scale=options.width), MultiScale(scale=options.width)])
        self.mel, self.whole = LogMel(config.mel), LogMel(config.mel.whole_band())
        self.listen(self.data, config.mel.sample_rate, self.data.seconds)

    def batch(self, step: int, rank: int = 0, ranks: int = 1) -> dict[str, Tensor]:
        """`real` [B,T]; `critic_loss` adds what the generator makes of it, which `loss` goes on with."""
        return {"real": super().batch(step, rank, ranks)}

    def critic_loss(
        self, batch: dict[str, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        real = batch["real"]
        batch["made"] = self.model(self.mel.to(real.device)(real))
        made = batch["made"].detach()[:, None]
        return sum(discriminator_loss(part(real[:, None]), part(made)) for part in self.critic), {}

    def loss(self, batch: dict[str, Any], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        real, made = batch["real"], batch.pop("made")
        with torch.no_grad():
            heard = [part(real[:, None]) for part in self.critic]
        whole = self.whole.to(real.device)
        parts = vocoder_loss(whole(real), whole(made), heard, [part(made[:, None]) for part in self.critic])
        return parts["total"], {name: value.item() for name, value in parts.items() if name != "total"}

    def evaluate(self, clips: int = 16) -> dict[str, float]:
        """L1 of the log-mels of held-out sounds and of what is made of them."""
        real = self.unheard(clips).to(next(self.model.parameters()).device)
        mel = self.mel.to(real.device)
        return {"mel": log_mel_distance(mel(real), mel(self.model(mel(real))))}

    def export(self, folder: Path) -> None:
        """Write the generator, folded."""
        folder.mkdir(parents=True, exist_ok=True)
        save_vocoder(self.model, folder / MelCodec.VOCODER)
