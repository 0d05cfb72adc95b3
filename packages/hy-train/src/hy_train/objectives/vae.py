"""Train the causal 3D VAE (section 4.1 of the HunyuanVideo report)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from hy_core.data import Clip, DataSource, SourceSpec, Split
from hy_core.errors import MissingError, UsageError
from hy_core.files import write_json
from hy_core.tables import from_table
from hy_core.training import Objective, Recipe, seeded
from hy_core.training.batch import to_pixels
from hy_core.vae import VAE, VAEConfig
from hy_core.weights import load_vae, save_safetensors
from torch import Tensor, nn

from hy_train.objectives.vae_channels import bias_of, reduce_channels
from hy_train.sources import check_tables, open_sources, recipe_plugins

_FOREGROUND = 60  # sum of the differences of three colours, of 765: a pixel that isn't background


@dataclass(frozen=True)
class Phase:
    """A part of the run: until the fraction `until` of the steps, random crops of `crop` pixels a side.

    `frames` are lengths to draw from, with repeats to draw one more often; `batch` rows of the longest (the recipe's if
    0), and as many shorter clips as have about as many frames together.
    """

    until: float
    crop: int
    frames: tuple[int, ...]
    batch: int = 0


@dataclass(frozen=True)
class VAEData:
    """Which clips to train on, and in which phases: small and short first, whole and long last."""

    source: str = ""  # a dataset, or several joined by "+", of which each is drawn equally often
    sources: dict[str, Any] = field(default_factory=dict)  # a table of options for each
    clips: int = 1 << 20  # of each dataset; 0 for all it has
    size: int = 64  # height and width of a clip
    frames: int = 17
    interval: int = 1  # frames are taken at random distances up to this (the report: 8)
    phases: tuple[Phase, ...] = (Phase(1.0, 64, (1, 5, 5, 5, 5)),)

    def __post_init__(self) -> None:
        if not self.source:
            raise UsageError("data.source names no dataset", 'such as source = "folder"')
        if not self.phases or self.interval < 1:
            raise UsageError("data: phases is empty or interval below 1")
        for one in self.phases:
            if not one.frames or not 0 < min(one.frames) <= max(one.frames) <= self.frames:
                raise UsageError(
                    f"data.phases: frames = {list(one.frames)}",
                    f"lengths from 1 to data.frames = {self.frames}",
                )
            if not 0 < one.crop <= self.size:
                raise UsageError(f"data.phases: crop = {one.crop}", f"from 1 to data.size = {self.size}")


@dataclass(frozen=True)
class VAELoss:
    """Weights of the loss: L1 + `square` * L2 + `kl` * KL, each a mean over elements.

    The report's perceptual and adversarial terms need networks trained on photographs and are left out.
    """

    square: float = 2.0
    kl: float = 1e-4
    logvar: float = -4.0  # log-variance of the untrained encoder: little noise at first
    decoder_only: bool = False  # freeze the encoder, and with it the latents that a DiT was trained on
    noise: float = (
        0.0  # largest noise added to latents, in their standard deviation: a DiT's are inexact (as in RAE)
    )


class VAEObjective(Objective[Tensor]):
    """Reconstruction of clips. `init_from` is the folder of an earlier run's export to start from."""

    model: VAE

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        super().__init__(recipe, folder)
        self.data = from_table(VAEData, recipe.data, "data")
        self.weights = from_table(VAELoss, recipe.options, "options")
        self.train_sources, self.heldout_sources = self._open("train"), self._open("heldout")
        torch.manual_seed(recipe.seed)
        if recipe.init_from:
            self.model = self._initial().requires_grad_(True)
        else:
            self.model = VAE(from_table(VAEConfig, recipe.model, "model"))
            initialise(self.model, self.weights.logvar)
        self.config = self.model.config
        if self.weights.decoder_only:
            self.model.encoder.requires_grad_(False)
            self.model.quant_conv.requires_grad_(False)

    def _open(self, split: Split) -> list[DataSource]:
        data, names = self.data, self.data.source.split("+")
        specs = [
            SourceSpec(
                name, split, self.recipe.seed, data.clips, data.frames, data.size, data.size,
                options=data.sources.get(name, {}),
            )
            for name in names
        ]  # fmt: skip
        found = open_sources(specs, recipe_plugins(self.recipe))
        check_tables(data.sources, names)
        return found

    def _initial(self) -> VAE:
        """The codec of `init_from`, with fewer latent channels if [model] says so; else [model] must agree with it."""
        name, wanted = self.recipe.init_from, dict(self.recipe.model)
        model = read_vae(Path(name))
        before = model.config.latent_channels
        channels = wanted.pop("latent_channels", before)
        for key, value in wanted.items():
            if getattr(model.config, key, None) != (tuple(value) if isinstance(value, list) else value):
                raise UsageError(
                    f"model.{key} = {value!r}, but init_from = {name!r} determines the codec",
                    "remove it: only latent_channels can be reduced",
                )
        if channels == before:
            return model
        rng = np.random.default_rng(seeded(self.recipe.seed, 6))
        clips = [self._draw(self.train_sources, rng) for _ in range(48)]
        return reduce_channels(model, channels, clips, self.weights.logvar)

    def batch(self, step: int, rank: int = 0, ranks: int = 1) -> Tensor:
        """Clips [B, 3, T, H, W] in [-1, 1]; all of a batch have one length."""
        rng = np.random.default_rng(seeded(self.recipe.seed, 0, step, rank))
        done = step / self.recipe.steps
        phase = next((one for one in self.data.phases if done < one.until), self.data.phases[-1])
        frames = int(rng.choice(phase.frames))
        # Shorter clips are cheaper: fill the batch to about the same number of frames, of single images to half.
        rows = (phase.batch or self.recipe.batch) * max(phase.frames) / frames / (2 if frames == 1 else 1)
        return torch.stack([self._crop(rng, frames, phase.crop) for _ in range(max(1, round(rows)))])

    def _crop(self, rng: np.random.Generator, frames: int, crop: int) -> Tensor:
        size, total = self.data.size, self.data.frames
        clip = self._draw(self.train_sources, rng)
        video = clip.video()
        longest = (total - 1) // max(frames - 1, 1)
        stride = int(rng.integers(1, min(self.data.interval, longest) + 1)) if frames > 1 else 1
        start = int(rng.integers(0, total - (frames - 1) * stride))
        video = video[start : start + (frames - 1) * stride + 1 : stride]
        if crop < size:
            # Mostly around the foreground: the background is learnt soon and fills most of the frame.
            difference = np.abs(video[rng.integers(frames)] - clip.background()).sum(-1)
            rows, columns = np.nonzero(difference > _FOREGROUND)
            if len(rows) and rng.random() < 0.85:
                pixel = rng.integers(len(rows))
                y = rows[pixel] - rng.integers(crop)
                x = columns[pixel] - rng.integers(crop)
            else:
                y, x = rng.integers(0, size - crop + 1, 2)
            y, x = (int(np.clip(v, 0, size - crop)) for v in (y, x))
            video = video[:, y : y + crop, x : x + crop]
        return to_pixels(video)

    @staticmethod
    def _draw(sources: list[DataSource], rng: np.random.Generator) -> Clip:
        source = sources[int(rng.integers(len(sources))) if len(sources) > 1 else 0]
        return source[int(rng.integers(len(source)))]

    def loss(self, batch: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of pixels [B, 3, T, H, W], a scalar tensor, and its parts as numbers."""
        with torch.set_grad_enabled(not self.weights.decoder_only):
            posterior = self.model.encode(batch)
        latents = posterior.sample(generator)
        if self.weights.noise:
            size = torch.rand(len(batch), 1, 1, 1, 1, generator=generator) * self.weights.noise
            noise = torch.randn(latents.shape, generator=generator)
            latents = latents + noise * size / self.config.scaling
        output = self.model.decode(latents)
        square = F.mse_loss(output, batch)
        kl = posterior.kl().sum() / posterior.mean.numel()
        loss = F.l1_loss(output, batch) + self.weights.square * square + self.weights.kl * kl
        return loss, {"psnr": psnr(square.detach()), "kl": kl.detach().item()}

    def evaluate(self, clips: int = 24) -> dict[str, float]:
        """Return the PSNR of held-out clips in dB, from the mode, and the standard deviation of their latents."""
        rng = np.random.default_rng(seeded(self.recipe.seed, 2))
        squares, modes = [], []
        for _ in range(clips):
            video = to_pixels(self._draw(self.heldout_sources, rng).video())[None]
            mode = self.model.encode(video).mode()
            output = self.model.decode(mode).clamp(-1, 1)
            squares.append(F.mse_loss(output, video).item())
            modes.append(mode)
        latents = torch.cat(modes)
        return {
            "psnr": float(np.mean([psnr(torch.tensor(s)) for s in squares])),
            "psnr_worst": psnr(torch.tensor(max(squares))),
            "latent_std": latents.std().item(),
            "latent_std_least": latents.std((0, 2, 3, 4)).min().item(),
            "latent_std_most": latents.std((0, 2, 3, 4)).max().item(),
        }

    def export(self, folder: Path) -> None:
        """Write `vae.safetensors` and `vae.json`; the config's scaling makes the latents' standard deviation 1."""
        config = self.config
        if not self.weights.decoder_only:
            config = replace(config, scaling=round(1 / self.evaluate(8)["latent_std"], 6))
        folder.mkdir(parents=True, exist_ok=True)
        state = {k: v.detach().to(torch.float16).contiguous() for k, v in self.model.state_dict().items()}
        save_safetensors(folder / "vae.safetensors", state)
        write_json(folder / "vae.json", asdict(config))


@torch.no_grad()
def initialise(model: VAE, logvar: float) -> None:
    """Set initial weights that preserve the variance of the signal.

    Residual branches start at zero, so that the untrained codec is a chain of convolutions, each of which preserves the
    variance; torch's default would shrink it at each of a dozen of them.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv3d):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
            nn.init.zeros_(bias_of(module))
            if ".conv2." in name:
                nn.init.zeros_(module.weight)
    channels = model.config.latent_channels
    model.quant_conv.weight[channels:] = 0
    bias_of(model.quant_conv)[channels:] = logvar


def read_vae(folder: Path) -> VAE:
    """Load the VAE that `hy train` exported into a folder, float32; `MissingError` when there is none."""
    if not (folder / "vae.safetensors").is_file():
        raise MissingError(f"{folder} holds no vae.safetensors", "train one first: hy train pocket-vae")
    config = VAEConfig.from_dict(json.loads((folder / "vae.json").read_text(encoding="utf-8")))
    return load_vae(folder / "vae.safetensors", config=config, dtype=torch.float32)


def psnr(square: Tensor) -> float:
    """Mean squared error of pixels in [-1, 1] to decibels. The mean squared error is a scalar tensor."""
    return (10 * torch.log10(4 / square.clamp(min=1e-12))).item()
