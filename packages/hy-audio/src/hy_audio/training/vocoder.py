"""Train HiFi-GAN: as published against two kinds of discriminators, or by log-mels alone, which is faster."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from hy_core.errors import MissingError, UsageError
from hy_core.tables import from_table
from hy_core.training import Recipe
from torch import Tensor, nn

from hy_audio.codec.codec import MelCodec
from hy_audio.codec.discriminators import MultiPeriod, MultiScale
from hy_audio.codec.losses import discriminator_loss, log_mel_distance, total, vocoder_loss
from hy_audio.codec.mel import LogMel
from hy_audio.codec.vocoder import Vocoder, VocoderConfig, load_vocoder, save_vocoder
from hy_audio.training.sounds import ClipData, SoundObjective


@dataclass(frozen=True)
class VocoderData(ClipData):
    """`seconds`: of each clip; 8192 samples at 16 kHz as published."""

    seconds: float = 0.512


@dataclass(frozen=True)
class VocoderLoss:
    """Losses of the generator; the defaults are the published ones.

    `width`: factor of the discriminators' channels; 1 is the published size, 71 M parameters, 0 trains without them.
    `windows`: FFT sizes in samples of further log-mels to compare: short ones resolve time, long ones frequency.
    `floor`: smallest magnitude; smaller ones are set to it.
    """

    width: float = 1.0
    windows: tuple[int, ...] = ()
    floor: float = 1e-5


@dataclass
class VocoderBatch:
    """`real` waveforms [B, T]; `generated` ones of their log-mels [B, T], which the critic makes for the model."""

    real: Tensor
    generated: Tensor | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> VocoderBatch:
        """Return the batch with its waveforms on a device."""
        return VocoderBatch(self.real.to(device, non_blocking=non_blocking))


class VocoderObjective(SoundObjective[VocoderBatch]):
    """Waveforms from their log-mels.

    Weights are weight-normed in training and folded in the export.

    `[model]` holds fields of `VocoderConfig`, `[model.mel]`
    of `MelConfig`.
    """

    model: Vocoder
    data: VocoderData
    critic: nn.ModuleList | None = None

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        super().__init__(recipe, folder)
        self.data = from_table(VocoderData, recipe.data, "data")
        self.options = options = from_table(VocoderLoss, recipe.options, "options")
        config = from_table(VocoderConfig, recipe.model, "model")
        if options.width < 0 or not 1e-5 <= options.floor < 1:
            raise UsageError(
                f"options: no loss has a width of {options.width:g} and a floor of {options.floor:g}",
                "a width of 0 and more, a floor from 1e-5 to 1",
            )
        torch.manual_seed(recipe.seed)
        self.model = (self._started(config) if recipe.init_from else Vocoder(config)).normalise_weights()
        if options.width:
            self.critic = nn.ModuleList([MultiPeriod(scale=options.width), MultiScale(scale=options.width)])
        self.mel, whole = LogMel(config.mel), config.mel.whole_band()
        others = [
            replace(whole, n_fft=size, window=size, hop=size // 4, bins=min(whole.bins, size // 8))
            for size in options.windows
        ]
        self.compared = nn.ModuleList(LogMel(one) for one in (whole, *others))
        self.open_datasets(self.data, config.mel.sample_rate, self.data.seconds)

    def _started(self, config: VocoderConfig) -> Vocoder:
        file = Path(self.recipe.init_from) / MelCodec.VOCODER
        if not file.is_file():
            raise MissingError(f"{file} is missing", "init_from is the export of a vocoder's training")
        found = load_vocoder(file, dtype=torch.float32)
        if found.config != config:
            raise UsageError(f"{file} is another vocoder than [model] says", "give its [model]")
        return found.train()

    def draw(self, number: int) -> VocoderBatch:
        """Draw the batch of a number."""
        return VocoderBatch(self.draw_waveforms(number))

    def critic_loss(self, batch: VocoderBatch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Return the discriminators' loss of waveforms [B, T], a scalar tensor."""
        real = batch.real
        batch.generated = self._generate(real)
        generated = batch.generated.detach()[:, None]
        critic = self.critic or ()
        return total(discriminator_loss(part(real[:, None]), part(generated)) for part in critic), {}

    def loss(self, batch: VocoderBatch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Return the generator's loss of waveforms [B, T], a scalar tensor, and its parts as numbers."""
        real, critic = batch.real, self.critic or nn.ModuleList()
        generated = self._generate(real) if batch.generated is None else batch.generated
        batch.generated = None
        with torch.no_grad():
            outputs = [part(real[:, None]) for part in critic]
        parts = vocoder_loss(
            self._compared(real),
            self._compared(generated),
            outputs,
            [part(generated[:, None]) for part in critic],
        )
        return parts["total"], {name: value.item() for name, value in parts.items() if name != "total"}

    def _generate(self, real: Tensor) -> Tensor:
        return self.model(self.mel.to(real.device)(real))

    def _compared(self, wave: Tensor) -> list[Tensor]:
        lowest = math.log(self.options.floor)
        return [mel(wave).clamp(min=lowest) for mel in self.compared.to(wave.device)]

    def evaluate(self, clips: int = 16) -> dict[str, float]:
        """L1 of the log-mels of held-out sounds and of what is generated of them."""
        real = self.heldout_waveforms(clips).to(next(self.model.parameters()).device)
        mel = self.mel.to(real.device)
        return {"mel": log_mel_distance(mel(real), mel(self._generate(real)))}

    def export(self, folder: Path) -> None:
        """Write the generator, folded, in fp16."""
        folder.mkdir(parents=True, exist_ok=True)
        save_vocoder(self.model, folder / MelCodec.VOCODER, torch.float16)
