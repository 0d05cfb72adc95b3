"""Train a DiT by flow matching on cached latents (the paper's section 4.5)."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from hy_core import models
from hy_core.condition import Condition
from hy_core.conditioner import Conditioner
from hy_core.dit import DiT, DiTConfig, embedded_guidance
from hy_core.dit.ports import port_owner
from hy_core.errors import UsageError
from hy_core.files import write_json
from hy_core.flow.denoise import Denoiser
from hy_core.flow.path import interpolate, velocity
from hy_core.flow.schedule import sample_times
from hy_core.objective import Objective, seeded
from hy_core.plugins import Plugins
from hy_core.tables import from_table
from hy_core.text import TextEncoder
from hy_core.weights import load_dit, load_port_weights, load_vae, save_port_weights, save_safetensors
from torch import Tensor

from hy_train.align import NAME, Align, attach, find_teacher, taught
from hy_train.latents import Bucket, Latents
from hy_train.objectives.vae import read_vae
from hy_train.recipe import Recipe
from hy_train.source import WORLD, sources

GUIDANCE = 6.0
"""The embedded scale that a guidance-distilled network is trained further at, as the released trainers do."""

_TOGETHER = 8  # batches whose captions are drawn together and sorted by length


@dataclass(frozen=True)
class FlowData:
    """Which clips, and how many of each size are kept as latents."""

    start: str = ""  # folder or name of the model whose weights training begins with, in place of random ones
    model: str = (
        ""  # of the model whose VAE and text encoders are used; that of `start`, or pocket, if not given
    )
    vae: str = ""  # folder with vae.safetensors and vae.json, in place of the model's VAE
    source: str = WORLD  # the dataset that clips come from, where a bucket names no other
    sources: dict[str, Any] = field(default_factory=dict)  # a table for each of them, for its own options
    buckets: tuple[dict, ...] = ({"frames": 17, "height": 64, "width": 64, "clips": 4096, "share": 1.0},)


@dataclass(frozen=True)
class FlowLoss:
    """How times are drawn and how often the prompt is dropped, for classifier-free guidance.

    `things` is how much more a place counts where a clip isn't its empty background: there is the detail, and most of
    a frame is none. What a clip's places count together stays the same.

    `teacher` ("module:function", see `hy_train.align`) turns on representation alignment: the tokens after block `tap`
    learn, with weight `align`, to know what it says of their places.
    """

    times: str = "logit-normal"  # see hy_core.flow.schedule.sample_times
    shift: float = 1.0
    drop: float = 0.1
    things: float = 0.0
    teacher: str = ""
    align: float = 0.5
    tap: int = 1


class FlowObjective(Objective):
    """Velocity of noisy latents, given a caption and what the plugins of `[conditioning]` add to it.

    A plugin's `training_condition(batch, cond)` fills the Condition of a batch. `batch` holds the
    clean `latents` [B, C, F, h, w] of clips of `shape` (B, 3, T, H, W), `pixels()` which draws these in [-1, 1],
    `truth(row)` which tells what the source of the clips knows of one, `keys` that are equal for equal clips, the
    `prompts`, the `generator` that all chance comes from, `folder` for what is worth keeping, and `settings`, the
    plugin's own table of the recipe. Pinned frames are left out of the loss, the rest counts as the condition's
    `weight` says.
    """

    def __init__(self, recipe: Recipe, folder: Path):
        super().__init__(recipe, folder)
        self.data = from_table(FlowData, recipe.data, "data")
        self.options = from_table(FlowLoss, recipe.options, "options")
        self.source = models.find(self.data.model or self.data.start or "pocket")
        torch.manual_seed(recipe.seed)
        self.model = self._network()
        self.config = self.model.config
        buckets = [from_table(Bucket, bucket, "data.buckets") for bucket in self.data.buckets]
        self.buckets = [replace(one, source=one.source or self.data.source) for one in buckets]
        self.sources = sources((one.source for one in self.buckets), self.data.sources, recipe.plugins)
        self._drawn: tuple[Any, list] | None = None
        plugins = Plugins()
        plugins.load(*recipe.plugins, *recipe.conditioning)
        self.conditioners = [plugins.conditioners().pick(name).for_training() for name in recipe.conditioning]
        for name in (name for one in self.buckets for name in one.conditioning or ()):
            if name not in recipe.conditioning:
                raise UsageError(
                    f"data.buckets: conditioning {name!r} has no table", f"add [conditioning.{name}]"
                )
        self.notes = {one.name: self._attach(one) for one in self.conditioners}
        self.teacher = find_teacher(self.options.teacher) if self.options.teacher else None
        self.align: Align | None = None

    def _attach(self, conditioner: Conditioner) -> dict[str, str]:
        """Attach a plugin's modules, with the weights that training goes on from; what its file is to say."""
        folder = models.find(self.data.start).folder if self.data.start else None
        notes = conditioner.attach_for_training(
            self.model, self.recipe.conditioning[conditioner.name], folder
        )
        if file := conditioner.weights(folder):
            load_port_weights(self.model, conditioner.name, file)
            self.model.requires_grad_(True)
        return dict(notes)

    def _network(self) -> DiT:
        """The network that training begins with: `data.start`'s, or one with random weights."""
        if not self.data.start:
            return DiT(
                from_table(DiTConfig, {**asdict(DiTConfig.named["pocket"]), **self.recipe.model}, "model")
            )
        if self.recipe.model:
            raise UsageError(
                f"[model] is given, but data.start = {self.data.start!r} says what the model is",
                "leave [model] out",
            )
        return load_dit(models.find(self.data.start).dit, dtype=torch.float32)

    def prepare(self) -> None:
        """Encode the clips of every bucket, once, and load the text encoders."""
        self.latents = Latents(
            self.buckets, self.recipe.seed, self.folder / "latents", self._vae, self.sources
        )
        self.latents.fill()
        self.encoder = TextEncoder.load(self.source.folder, "cpu", torch.float32)
        self.vae = self._vae().eval().requires_grad_(False) if self.conditioners else None
        if self.teacher:
            known = next((number for number, one in enumerate(self.buckets) if one.aligned), None)
            if known is None:
                raise UsageError(
                    "options.teacher is given, but no bucket is aligned", "leave aligned = false out of one"
                )
            told = taught(self.teacher, self._batch(known, np.zeros(1, int), [""]), self.model)
            self.align = attach(self.model, self.options.tap, told.shape[-1])

    def _vae(self):
        if not self.data.vae:
            return load_vae(self.source.vae, dtype=torch.float32).eval().requires_grad_(False)
        return read_vae(Path(self.data.vae))

    def batch(self, step: int, rank: int = 0, ranks: int = 1) -> dict[str, Any]:
        """Latents [B, C, F, h, w] of one bucket with the text of their captions."""
        group, place = divmod(step, _TOGETHER)
        key = (group, rank)
        if self._drawn is None or self._drawn[0] != key:
            self._drawn = key, self._draw(group, rank)
        bucket, indices, prompts = self._drawn[1][place]
        return self._batch(bucket, indices, prompts)

    def _batch(self, bucket: int, indices: np.ndarray, prompts: list[str]) -> dict[str, Any]:
        """The clips of these numbers, with these words."""
        one = self.buckets[bucket]
        encoded = self.encoder.encode(prompts)
        return {
            "latents": self.latents.get(bucket, indices),
            "things": self.latents.things(bucket, indices),
            "text": encoded.text,
            "pooled": encoded.pooled,
            "shape": (len(indices), 3, one.frames, one.height, one.width),
            "prompts": prompts,
            "pixels": partial(self.latents.pixels, bucket, indices),
            "truth": lambda row: self.latents.clip(bucket, int(indices[row])).truth(),
            "keys": [f"{one.file}-{index}" for index in indices],
            "folder": self.folder,
            "conditioners": self._acting(bucket),
            "aligned": self.align is not None and one.aligned,
        }

    def _acting(self, bucket: int) -> list[Conditioner]:
        """The plugins that condition the batches of a bucket."""
        names = self.buckets[bucket].conditioning
        return [one for one in self.conditioners if names is None or one.name in names]

    def _draw(self, group: int, rank: int) -> list[tuple[int, np.ndarray, list[str]]]:
        """Several batches at once: rows of nearly one caption length stand together, for then nothing is padded.

        All ranks take a step's batch from one bucket, so that none waits for another.
        """
        done = group * _TOGETHER / self.recipe.steps
        shares = np.array([bucket.share * (done >= bucket.begin) for bucket in self.buckets])
        alike = np.random.default_rng(seeded(self.recipe.seed, 3, group))
        chosen = alike.choice(len(self.buckets), _TOGETHER, p=shares / shares.sum())
        rng = np.random.default_rng(seeded(self.recipe.seed, 3, group, rank))
        batches: list[Any] = [None] * _TOGETHER
        for bucket in np.unique(chosen):
            places = rng.permutation(np.flatnonzero(chosen == bucket))
            rows = self.buckets[bucket].batch or self.recipe.batch
            indices = rng.integers(self.buckets[bucket].clips, size=len(places) * rows)
            prompts = [
                "" if rng.random() < self.options.drop else self.latents.caption(int(bucket), int(i), rng)
                for i in indices
            ]
            lengths = [len(self.encoder.llm.tokens(prompt)[0]) for prompt in prompts]
            order = np.argsort(lengths, kind="stable")
            for place, chunk in zip(places, np.array_split(order, len(places)), strict=True):
                batches[place] = int(bucket), indices[chunk], [prompts[i] for i in chunk]
        return batches

    def loss(self, batch: dict[str, Any], generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Return the flow-matching loss of latents [B, C, F, h, w], a scalar tensor, and numbers to log."""
        data = batch["latents"]
        rows, _, frames, *_ = data.shape
        time = sample_times(rows, self.options.times, self.options.shift, generator=generator).to(data.device)
        noise = torch.randn(data.shape, generator=generator, device=generator.device).to(data.device)
        cond = self.condition(data, batch["text"], batch["pooled"])
        self._encode(batch, cond, generator)
        if self.options.things:
            more = 1 + self.options.things * batch["things"]
            cond.weigh(more / more.mean((2, 3, 4), keepdim=True))
        if batch["aligned"]:
            cond.set_adapter_inputs(NAME, taught(self.teacher, batch, self.model))
        predicted = Denoiser(self.model, cond)(interpolate(data, noise, time), time)
        free = [frame for frame in range(frames) if frame not in cond.fixed_frames]
        predicted, target = predicted[:, :, free], velocity(data, noise)[:, :, free]
        flow = (predicted - target).square()
        if cond.weight is not None:
            flow = flow * cond.weight.to(predicted).expand(-1, -1, frames, -1, -1)[:, :, free]
        flow = flow.mean()
        if not batch["aligned"]:
            return flow, {}
        align = self.align.loss
        return flow + self.options.align * align, {"flow": flow.item(), "align": align.item()}

    def _encode(self, batch: dict[str, Any], cond: Condition, generator: torch.Generator) -> None:
        for conditioner in batch["conditioners"]:
            settings = self.recipe.conditioning[conditioner.name]
            conditioner.training_condition({**batch, "generator": generator, "settings": settings}, cond)
        if (
            self.conditioners and cond.condition_channels and cond.channel_condition is None
        ):  # no picture here: text to video
            cond.set_channel_condition(
                "nothing", torch.zeros(1, cond.condition_channels, cond.frames, *cond.size)
            )

    def condition(self, data: Tensor, text: list[Tensor], pooled: Tensor) -> Condition:
        """What the network sees beside latents [B, C, F, h, w]: their text, and no plugin's doing yet."""
        return Condition(
            text=list(text),
            pooled=pooled,
            frames=data.shape[2],
            size=tuple(data.shape[3:]),
            patch=tuple(self.config.patch[1:]),
            guidance=embedded_guidance(GUIDANCE).expand(len(text)) if self.config.guidance else None,
            condition_channels=self.config.in_channels - self.config.out_channels,
            vae=self.vae,
            folder=self.source.folder,
        )

    def evaluate(self, rows: int = 64) -> dict[str, float]:
        """Loss at fixed times on the first batch: comparable between moments of a run, not between runs."""
        rng = np.random.default_rng(seeded(self.recipe.seed, 4))
        indices = rng.integers(self.buckets[0].clips, size=rows)
        prompts = [self.latents.caption(0, int(i), rng) for i in indices]
        batch = self._batch(0, indices, prompts)
        data, generator = batch["latents"], torch.Generator().manual_seed(0)
        noise = torch.randn(data.shape, generator=generator)
        cond = self.condition(data, batch["text"], batch["pooled"])
        owners = {
            port_owner(key) for key in self.model.state_dict()
        }  # those without modules only give frames
        batch["conditioners"] = [one for one in batch["conditioners"] if one.name in owners]
        self._encode(batch, cond, generator)
        free = [frame for frame in range(data.shape[2]) if frame not in cond.fixed_frames]
        denoiser = Denoiser(self.model, cond)
        losses = {}
        for time in (0.2, 0.5, 0.8, 0.95):
            times = torch.full((rows,), time)
            predicted = denoiser(interpolate(data, noise, times), times)
            losses[f"loss_{time}"] = F.mse_loss(
                predicted[:, :, free], velocity(data, noise)[:, :, free]
            ).item()
        return losses

    def export(self, folder: Path) -> None:
        """Write a whole model folder, for `hy generate --model FOLDER`: the DiT in bfloat16, all else copied.

        What plugins attached has a file of its own, NAME.safetensors.
        """
        source = self.source
        folder.mkdir(parents=True, exist_ok=True)
        own = {k: v for k, v in self.model.state_dict().items() if port_owner(k) is None}
        state = {k: v.detach().to(torch.bfloat16).contiguous() for k, v in own.items()}
        save_safetensors(folder / "dit.safetensors", state)
        for name in self.notes.keys() & {port_owner(k) for k in self.model.state_dict()}:
            save_port_weights(self.model, name, folder / f"{name}.safetensors", self.notes[name])
        config = {**source.config, "name": self.recipe.name, "dit": self.config.to_json()}
        if self.data.vae:
            vae = Path(self.data.vae)
            config["vae"] = json.loads((vae / "vae.json").read_text(encoding="utf-8"))
            shutil.copyfile(vae / "vae.safetensors", folder / "vae.safetensors")
        else:
            shutil.copyfile(source.vae, folder / "vae.safetensors")
        for part in ("llm", "clip"):
            shutil.copytree(source.folder / part, folder / part, dirs_exist_ok=True)
        write_json(folder / "config.json", config)
