"""Train the causal 3D VAE from scratch on clips that are drawn (the paper's section 4.1)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from hy_core.errors import MissingError, UsageError
from hy_core.files import write_json
from hy_core.objective import Objective, seeded
from hy_core.tables import from_table
from hy_core.vae import VAE, VAEConfig
from hy_core.weights import load_vae, save_safetensors
from torch import Tensor, nn

from hy_train.recipe import Recipe
from hy_train.source import WORLD, sources

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hy_world.clips import Clip, Source


@dataclass(frozen=True)
class VAEData:
    """What clips to train on. The phases are the paper's curriculum: small and short first, whole and long last."""

    size: int = 64  # height and width of the rendered clip
    frames: int = 17
    source: str = WORLD  # the dataset that clips come from; of "world+characters" each is drawn alike often
    sources: dict[str, Any] = field(default_factory=dict)  # a table for each of them, for its own options
    start: str = ""  # folder of an earlier run's export to begin with, in place of random weights
    interval: int = 1  # frames are taken at random distances up to this (the paper: 8)
    phases: tuple[dict, ...] = ({"until": 1.0, "crop": 64, "frames": [1, 5, 5, 5, 5]},)


@dataclass(frozen=True)
class VAELoss:
    """Weights of the loss: L1 + `square` * L2 + `kl` * KL, each a mean over elements.

    The paper's perceptual and adversarial terms need networks trained on photographs; flat shapes have no texture that
    they could restore, and PSNR is what the world's judge needs.
    """

    square: float = 2.0
    kl: float = 1e-4
    logvar: float = -4.0  # log-variance of the untrained encoder: small noise, so that it learns to see first
    decoder_only: bool = False  # keep the encoder, and with it the latents that a DiT was trained on
    noise: float = 0.0  # most noise added to latents, in their spread: a DiT's are never exact (as in RAE)


class VAEObjective(Objective):
    """Reconstruction of clips of the world, its characters, or both."""

    def __init__(self, recipe: Recipe, folder: Path):
        super().__init__(recipe, folder)
        self.data = from_table(VAEData, recipe.data, "data")
        self.weights = from_table(VAELoss, recipe.options, "options")
        names = self.data.source.split("+")
        self.sources = list(sources(names, self.data.sources, recipe.plugins).values())
        torch.manual_seed(recipe.seed)
        if self.data.start:
            self.model = self._started().requires_grad_(True)
        else:
            self.model = VAE(from_table(VAEConfig, recipe.model, "model"))
            start(self.model, self.weights.logvar)
        self.config = self.model.config
        if self.weights.decoder_only:
            self.model.encoder.requires_grad_(False)
            self.model.quant_conv.requires_grad_(False)

    def _started(self) -> VAE:
        """The codec of `data.start`, with fewer latent channels if [model] says so; else [model] must agree with it."""
        model, wanted = read_vae(Path(self.data.start)), dict(self.recipe.model)
        before = model.config.latent_channels
        channels = wanted.pop("latent_channels", before)
        for key, value in wanted.items():
            if getattr(model.config, key, None) != (tuple(value) if isinstance(value, list) else value):
                raise UsageError(
                    f"model.{key} = {value!r}, but data.start = {self.data.start!r} says what the codec is",
                    "leave it out: only latent_channels can be made fewer",
                )
        if channels == before:
            return model
        rng, size = np.random.default_rng(seeded(self.recipe.seed, 6)), self.data.size
        clips = [self._source(rng).clip(rng, "train", self.data.frames, size, size) for _ in range(48)]
        return narrowed(model, channels, clips, self.weights.logvar)

    def batch(self, step: int, rank: int = 0, ranks: int = 1) -> Tensor:
        """Clips [B, 3, T, H, W] in [-1, 1]; all of a batch have one length."""
        rng = np.random.default_rng(seeded(self.recipe.seed, 0, step, rank))
        done = step / self.recipe.steps
        phase = next((p for p in self.data.phases if done < p["until"]), self.data.phases[-1])
        frames = int(rng.choice(phase["frames"]))
        # Shorter clips are cheaper: fill the batch up to about the same number of frames, of pictures to half of it.
        count = (
            phase.get("batch", self.recipe.batch) * max(phase["frames"]) / frames / (2 if frames == 1 else 1)
        )
        count = max(1, round(count))
        return torch.stack([self._clip(rng, frames, phase["crop"]) for _ in range(count)])

    def _clip(self, rng: np.random.Generator, frames: int, crop: int) -> Tensor:
        size, total = self.data.size, self.data.frames
        drawn = self._source(rng).clip(rng, "train", total, size, size)
        video = drawn.pixels()
        longest = (total - 1) // max(frames - 1, 1)
        stride = int(rng.integers(1, min(self.data.interval, longest) + 1)) if frames > 1 else 1
        start = int(rng.integers(0, total - (frames - 1) * stride))
        video = video[start : start + (frames - 1) * stride + 1 : stride]
        if crop < size:
            # Mostly around a thing: the background is learnt soon and fills the frame.
            away = np.abs(video[rng.integers(frames)] - drawn.ground()).sum(-1)
            rows, columns = np.nonzero(away > 60)
            if len(rows) and rng.random() < 0.85:
                pick = rng.integers(len(rows))
                y = rows[pick] - rng.integers(crop)
                x = columns[pick] - rng.integers(crop)
            else:
                y, x = rng.integers(0, size - crop + 1, 2)
            y, x = (int(np.clip(v, 0, size - crop)) for v in (y, x))
            video = video[:, y : y + crop, x : x + crop]
        return pixels(video)

    def _source(self, rng: np.random.Generator) -> Source:
        return self.sources[int(rng.integers(len(self.sources))) if len(self.sources) > 1 else 0]

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
        """PSNR [dB] of held-out clips and of their moving things, from the mode."""
        rng = np.random.default_rng(seeded(self.recipe.seed, 2))
        size, frames = self.data.size, self.data.frames
        squares, latents = [], []
        for _ in range(clips):
            clip = self._source(rng).clip(rng, "heldout", frames, size, size)
            video = pixels(clip.pixels())[None]
            mode = self.model.encode(video).mode()
            output = self.model.decode(mode).clamp(-1, 1)
            squares.append(F.mse_loss(output, video).item())
            latents.append(mode)
        latents = torch.cat(latents)
        return {
            "psnr": float(np.mean([psnr(torch.tensor(s)) for s in squares])),
            "psnr_worst": psnr(torch.tensor(max(squares))),
            "latent_std": latents.std().item(),
            "latent_std_of_channels": [round(x, 3) for x in latents.std((0, 2, 3, 4)).tolist()],
        }

    def export(self, folder: Path) -> None:
        """Write `vae.safetensors` and `vae.json`; the config's scaling makes the latents' spread 1."""
        config = self.config
        if not self.weights.decoder_only:
            config = replace(config, scaling=round(1 / self.evaluate(8)["latent_std"], 6))
        folder.mkdir(parents=True, exist_ok=True)
        state = {k: v.detach().to(torch.float16).contiguous() for k, v in self.model.state_dict().items()}
        save_safetensors(folder / "vae.safetensors", state)
        write_json(folder / "vae.json", asdict(config))


@torch.no_grad()
def start(model: VAE, logvar: float) -> None:
    """Set the weights that training begins from: a network that passes its signal on at its size.

    Residual branches begin at nothing, so that the untrained codec is a chain of convolutions, each of which keeps the
    variance of what it gets; torch's default would shrink it at each of the chain's dozen links.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv3d):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
            nn.init.zeros_(module.bias)
            if ".conv2." in name:
                nn.init.zeros_(module.weight)
    channels = model.config.latent_channels
    model.quant_conv.weight[channels:] = 0
    model.quant_conv.bias[channels:] = logvar


@torch.no_grad()
def narrowed(model: VAE, channels: int, clips: Sequence[Clip], logvar: float) -> VAE:
    """The same codec with fewer latent channels: the principal components of its latents on `clips`.

    Exact but for what the components leave out: changes of basis are folded into the convolutions beside the latents.
    The components' spreads are brought closer to each other (square roots, 2 on average), and the log-variance begins
    at `logvar`. UsageError unless there are fewer channels than before.
    """
    before = model.config.latent_channels
    if not 0 < channels < before:
        raise UsageError(f"model.latent_channels = {channels}: not fewer than data.start's {before}")
    latents = torch.cat([model.encode(pixels(clip.pixels())[None]).mode() for clip in clips])
    flat = latents.transpose(0, 1).flatten(1)
    mean, (spread, axes) = flat.mean(1), torch.linalg.eigh(torch.cov(flat))
    spread, axes = spread.flip(0)[:channels], axes.flip(1)[:, :channels]
    gain = 2 * (spread.mean() / spread) ** 0.25 / spread.sqrt().mean()
    there, back = (axes * gain).T, axes / gain  # [channels, before], [before, channels]

    small = VAE(replace(model.config, latent_channels=channels))
    beside = ("quant_conv.", "post_quant_conv.", "encoder.conv_out.", "decoder.conv_in.")
    kept = {k: v for k, v in model.state_dict().items() if not k.startswith(beside)}
    small.load_state_dict(kept, strict=False)
    quant = model.quant_conv.weight[:before, :, 0, 0, 0]  # what makes the mean
    out, new = model.encoder.conv_out.conv, small.encoder.conv_out.conv
    new.weight.zero_()
    new.weight[:channels] = torch.einsum("ij,jk,k...->i...", there, quant, out.weight)
    new.bias.fill_(logvar)
    new.bias[:channels] = there @ (quant @ out.bias + model.quant_conv.bias[:before] - mean)
    post, bias = model.post_quant_conv.weight[:, :, 0, 0, 0], model.post_quant_conv.bias
    into, new = model.decoder.conv_in.conv, small.decoder.conv_in.conv
    new.weight.copy_(torch.einsum("oi...,ij,jk->ok...", into.weight, post, back))
    new.bias.copy_(into.bias + into.weight.sum((2, 3, 4)) @ (post @ mean + bias))
    for conv in (small.quant_conv, small.post_quant_conv):
        conv.weight.copy_(torch.eye(len(conv.weight))[:, :, None, None, None])
        conv.bias.zero_()
    return small


def read_vae(folder: Path) -> VAE:
    """Load the VAE that `hy train` exported into a folder, float32; `MissingError` when there is none."""
    if not (folder / "vae.safetensors").is_file():
        raise MissingError(f"{folder} holds no vae.safetensors", "train one first: hy train pocket-vae")
    config = VAEConfig.from_dict(json.loads((folder / "vae.json").read_text(encoding="utf-8")))
    return load_vae(folder / "vae.safetensors", config=config, dtype=torch.float32)


def pixels(video: np.ndarray) -> Tensor:
    """Frames uint8 [T, H, W, 3] to [3, T, H, W] in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(video)).permute(3, 0, 1, 2).float() / 127.5 - 1


def psnr(square: Tensor) -> float:
    """Mean squared error of pixels in [-1, 1] to decibels. The mean squared error is a scalar tensor."""
    return (10 * torch.log10(4 / square.clamp(min=1e-12))).item()
