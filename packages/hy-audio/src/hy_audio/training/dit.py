"""Train the tri-stream DiT by flow matching: latents of clips' sounds, given their pictures and words."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hy_core import models
from hy_core.data import Clip, DataSource
from hy_core.errors import MissingError, UsageError
from hy_core.flow.schedule import sample_times
from hy_core.imports import import_target
from hy_core.tables import from_table
from hy_core.training import Recipe, seeded
from torch import Tensor, nn

from hy_audio.codec.codec import MelCodec
from hy_audio.codec.vae import MelVAE
from hy_audio.codec.vocoder import load_vocoder
from hy_audio.dit.config import AudioDiTConfig
from hy_audio.dit.features import feature_extractors
from hy_audio.dit.losses import Alignment, drop_conditions, flow_loss
from hy_audio.dit.model import AudioDiT
from hy_audio.dit.model_config import AudioModelConfig, PixelFeaturesConfig
from hy_audio.dit.text import language_model, load_text_encoder
from hy_audio.frame_sampler import FrameSampler, sample_windows
from hy_audio.models import OWN, POCKET, kind
from hy_audio.training.model_folder import write_model_folder
from hy_audio.training.sounds import ClipData, ClipObjective, open_clips, resampled
from hy_audio.weights import load_network, save_network
from hy_audio.windows import Window


@dataclass(frozen=True)
class AudioFlowData(ClipData):
    """What latents, pictures and words come from, and what the model's folder states of itself.

    `vae` and `vocoder` are the exports of their trainings, or folders with such files. `clip` and `t5` are folders of
    encoders; without them pictures are small ones (`pixels`), and words are read by the language model of `words`, a
    model of the core by its name, which the model's folder then names too, or by its folder, of which it gets a copy.
    `seconds` is the longest window that the trained model makes at once; `steps` and `cfg` are what it is sampled
    with. Training may start from the recipe's `init_from`, the folder of a model or "pocket": its latents are those of
    its own codec, so that is used unless another is given.
    """

    vae: str = ""
    vocoder: str = ""
    clip: str = ""
    t5: str = ""
    text_encoder: str = "pocket"
    pixels: PixelFeaturesConfig = field(default_factory=PixelFeaturesConfig)
    seconds: float = 4.0
    steps: int = AudioModelConfig.steps
    cfg: float = AudioModelConfig.cfg


@dataclass(frozen=True)
class AudioFlowLoss:
    """How times are drawn, what is left out, and what else is learned.

    Pictures and words are left out independently with probability `drop`, and both together with `drop_all`: for
    classifier-free guidance. `teacher` ("module:attribute", with a `rate` and a call from mono samples to features
    [S,D]) turns on representation alignment: the audio tokens after block `tap` learn, with weight `align`, to point
    where the teacher's features do.
    """

    timestep_sampling: str = "logit-normal"
    shift: float = 1.0
    condition_dropout: float = 0.1
    joint_dropout: float = 0.1
    repa_targets: str = ""
    repa_weight: float = 0.5
    repa_block: int = 2


@dataclass(frozen=True)
class AudioBatch:
    """B clips' sound as `latents` [B, C, N], and each row's features.

    `visual` [T_i, D_visual] with the moments `at` [T_i] in seconds, `sync` [S_i, D_sync] (None if the network takes
    none), `text` [L_i, D_text]; `repa_targets` [B, S, D] are the teacher's, if there is one.
    """

    latents: Tensor
    visual: list[Tensor]
    at: list[Tensor]
    sync: list[Tensor] | None
    text: list[Tensor]
    repa_targets: Tensor | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> AudioBatch:
        """Return the batch with its tensors on a device."""

        def moved(rows: list[Tensor]) -> list[Tensor]:
            return [row.to(device, non_blocking=non_blocking) for row in rows]

        return AudioBatch(
            self.latents.to(device, non_blocking=non_blocking),
            moved(self.visual),
            moved(self.at),
            None if self.sync is None else moved(self.sync),
            moved(self.text),
            None if self.repa_targets is None else self.repa_targets.to(device, non_blocking=non_blocking),
        )


class AudioFlowObjective(ClipObjective[AudioBatch]):
    """Velocity of noisy audio latents; `[model]` holds what differs from the size "pocket"."""

    data: AudioFlowData

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        super().__init__(recipe, folder)
        self.data = from_table(AudioFlowData, recipe.data, "data")
        self.options = from_table(AudioFlowLoss, recipe.options, "options")
        self.start = self._start()
        torch.manual_seed(recipe.seed)
        self.model: nn.Module = self._network()
        self.config = self.model.config
        self.teacher = self._teacher()
        if self.teacher:
            width = len(np.atleast_2d(self._repa_target(np.zeros(self.teacher.rate, np.float32)))[0])
            self.model = nn.ModuleDict({"dit": self.model, "align": Alignment(self.config.width, width)})
        self.clips = open_clips(recipe, self.data, group=recipe.batch)
        self.heldout = open_clips(recipe, self.data, heldout=True, group=recipe.batch)

    @property
    def dit(self) -> AudioDiT:
        """The network itself, with or without what is trained beside it."""
        found = self.model["dit"] if isinstance(self.model, nn.ModuleDict) else self.model
        assert isinstance(found, AudioDiT)
        return found

    def prepare(self) -> None:
        """Put the parts of the model's folder together, and load them from there, as `hy audio` will."""
        parts, data = self.folder / "parts", self.data
        model_config = AudioModelConfig(
            data.seconds,
            self.options.shift,
            data.steps,
            data.cfg,
            pixels=None if data.clip else data.pixels,
        )
        copied = {name: Path(source) for name, source in (("clip", data.clip), ("t5", data.t5)) if source}
        if not data.t5:
            words = language_model(data.text_encoder)
            if words.parent == Path(data.text_encoder).expanduser():
                copied["llm"] = words
            else:
                model_config = replace(
                    model_config, text_encoder=data.text_encoder, text_encoder_hash=models.fingerprint(words)
                )
        codec = self._codec()
        if (codec.channels, codec.sample_rate / codec.hop) != (self.config.channels, self.config.rate):
            raise UsageError(
                f"the codec has {codec.channels} channels and {codec.sample_rate / codec.hop:g} latents a second, the "
                f"network {self.config.channels} and {self.config.rate:g}",
                "set model.channels and model.rate to the codec's",
            )
        write_model_folder(parts, model_config, copied)
        codec.save(parts / "codec", torch.float16)
        self.codec = MelCodec.load(parts / "codec", dtype=torch.float32).requires_grad_(False)
        self.feature_extractors, self.reader = (
            feature_extractors(parts, self.config),
            load_text_encoder(parts, self.config, dtype=torch.float32),
        )
        self.samplers = {
            name: FrameSampler(extractor.fps, extractor.prepare)
            for name, extractor in self.feature_extractors.items()
        }

    def _start(self) -> Path | None:
        if not self.recipe.init_from:
            return None
        if self.recipe.model:
            raise UsageError(
                f"[model] is given, but init_from = {self.recipe.init_from!r} determines the model",
                "remove [model]",
            )
        folder = POCKET if self.recipe.init_from == "pocket" else Path(self.recipe.init_from).expanduser()
        if kind(folder) != "own":
            raise UsageError(f"{folder} holds no tri-stream DiT", "init_from is a pocket-audio-dit's export")
        return folder

    def _network(self) -> AudioDiT:
        """The network that training begins with: that of `init_from`, or one with random weights."""
        if self.start:
            return load_network(AudioDiT, self.start / OWN, dtype=torch.float32).train()
        small = AudioDiTConfig.named["pocket"].to_json()
        return AudioDiT(from_table(AudioDiTConfig, {**small, **self.recipe.model}, "model"))

    def _codec(self) -> MelCodec:
        own = self.start and self.start / "codec"
        vae = Path(self.data.vae or own or "runs/pocket-mel-vae/export") / MelCodec.VAE
        vocoder = Path(self.data.vocoder or own or "runs/pocket-vocoder/export") / MelCodec.VOCODER
        for path, name in ((vae, "pocket-mel-vae"), (vocoder, "pocket-vocoder")):
            if not path.is_file():
                raise MissingError(f"{path} is missing", f"train it first: hy train {name}")
        return MelCodec(load_network(MelVAE, vae), load_vocoder(vocoder)).eval()

    def draw(self, number: int) -> AudioBatch:
        """Encode the clips of a group."""
        return self._batch(self.clips, number % max(len(self.clips) // self.recipe.batch, 1))

    @torch.no_grad()
    def _batch(self, source: DataSource, group: int) -> AudioBatch:
        clips = [source[group * self.recipe.batch + row] for row in range(self.recipe.batch)]
        rng = np.random.default_rng(seeded(self.recipe.seed, 4, group))
        waves = [resampled(clip, self.codec.sample_rate) for clip in clips]
        shortest = min(len(wave) for wave in waves)
        waves = [wave[:shortest] for wave in waves]
        seen = [self._features(clip, shortest / self.codec.sample_rate) for clip in clips]
        targets = None
        if self.teacher:
            heard = [resampled(clip, self.teacher.rate) for clip in clips]
            count = round(shortest / self.codec.sample_rate * self.teacher.rate)
            targets = torch.stack([torch.as_tensor(self._repa_target(one[:count])) for one in heard])
        return AudioBatch(
            latents=self.codec.to_latents(torch.from_numpy(np.stack(waves))),
            visual=[row["visual"] for row in seen],
            at=[torch.arange(len(row["visual"])) / self.feature_extractors["visual"].fps for row in seen],
            sync=[row["sync"] for row in seen] if "sync" in self.feature_extractors else None,
            text=self.reader.encode([clip.caption(rng) for clip in clips]),
            repa_targets=targets,
        )

    def _features(self, clip: Clip, seconds: float) -> dict[str, Tensor]:
        """Features of a clip's pictures, sampled as `hy audio` samples them."""
        frames, window = clip.video(), Window(0.0, seconds)
        timed = ((index / clip.fps, frame) for index, frame in enumerate(frames))
        ((_, prepared),) = sample_windows(timed, [window], self.samplers)
        return {name: extractor.encode(prepared[name]) for name, extractor in self.feature_extractors.items()}

    def loss(self, batch: AudioBatch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """
        Return the flow-matching loss of a batch's latents [B, C, N], a scalar tensor, and numbers to log.
        """
        data, options, where = batch.latents, self.options, batch.latents.device
        time = sample_times(len(data), options.timestep_sampling, options.shift, generator=generator).to(
            where
        )
        noise = torch.randn(data.shape, generator=generator, device=generator.device).to(where)
        visual, text = drop_conditions(
            batch.visual,
            batch.text,
            rate=options.condition_dropout,
            together=options.joint_dropout,
            generator=generator,
        )
        # Times and timing go with the pictures.
        at = [row[: len(seen)] for row, seen in zip(batch.at, visual, strict=True)]
        sync = batch.sync and [
            row if len(seen) else row[:0] for row, seen in zip(batch.sync, visual, strict=True)
        ]
        prepared = self.dit.prepare(visual, text, data.shape[2], at, sync)
        if not self.teacher:
            return flow_loss(self.dit, data, noise, time, prepared), {}
        tokens_seen: list[Tensor] = []

        def network(latents: Tensor, time: Tensor, prepared: Any) -> Tensor:
            found, tokens = self.dit(latents, time, prepared, repa_block=options.repa_block)
            tokens_seen.append(tokens)
            return found

        flow = flow_loss(network, data, noise, time, prepared)
        align = self.model.get_submodule("align")(tokens_seen[0], batch.repa_targets)
        return flow + options.repa_weight * align, {"flow": flow.item(), "align": align.item()}

    def evaluate(self, batches: int = 2) -> dict[str, float]:
        """Loss at fixed times on held-out clips, with their conditions and without."""
        found: dict[str, list[float]] = {}
        for number in range(batches):
            batch = self._batch(self.heldout, number)
            data, where = batch.latents.to(self.dit.device), self.dit.device
            noise = torch.randn(data.shape, generator=torch.Generator().manual_seed(number)).to(where)
            length = data.shape[2]
            given = self.dit.prepare(batch.visual, batch.text, length, batch.at, batch.sync)
            none = self.dit.prepare(
                [row[:0] for row in batch.visual], [row[:0] for row in batch.text], length
            )
            for name, prepared in (("", given), ("_alone", none)):
                for time in (0.2, 0.5, 0.8):
                    times = torch.full((len(data),), time, device=where)
                    loss = flow_loss(self.dit, data, noise, times, prepared).item()
                    found.setdefault(f"loss{name}_{time}", []).append(loss)
        return {name: float(np.mean(values)) for name, values in found.items()}

    def export(self, folder: Path) -> None:
        """Write a whole model's folder, for `hy audio --model` and `hy generate -p audio --audio-model`.

        The DiT is in bf16, the codec in fp16.
        """
        shutil.copytree(self.folder / "parts", folder, dirs_exist_ok=True)
        save_network(self.dit, folder / "dit.safetensors", torch.bfloat16)

    def _teacher(self) -> Any:
        if not self.options.repa_targets:
            return None
        depth = self.config.depth_triple + self.config.depth_single
        if not 0 < self.options.repa_block <= depth:
            raise UsageError(
                f"options.repa_block = {self.options.repa_block}: the network has {depth} blocks"
            )
        found = import_target(self.options.repa_targets, "options.repa_targets")
        found = found() if isinstance(found, type) else found
        if not callable(found) or not isinstance(getattr(found, "rate", None), int):
            raise UsageError(
                f"{self.options.repa_targets} is no teacher", "it needs a rate and takes samples"
            )
        return found

    def _repa_target(self, samples: np.ndarray) -> np.ndarray:
        return np.asarray(self.teacher(samples), np.float32)
