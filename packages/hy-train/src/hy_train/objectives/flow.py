"""Train a DiT by flow matching on cached latents (section 4.5 of the HunyuanVideo report).

All of it is one subject: the flow objective, from its network and data to its loss and export.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from hy_core import models
from hy_core.condition import Condition, EncodingContext
from hy_core.conditioner import Conditioner
from hy_core.data import DataSource, SourceSpec, left_out
from hy_core.data.keys import encoders_fingerprint
from hy_core.dit import DiT, DiTConfig, embedded_guidance
from hy_core.dit.ports import port_owner
from hy_core.errors import UsageError
from hy_core.estimate.count import forward_flops
from hy_core.files import write_json
from hy_core.flow.denoise import Denoiser
from hy_core.flow.path import interpolate, velocity
from hy_core.flow.schedule import sample_times
from hy_core.plugins import Plugins
from hy_core.tables import from_table, read_json
from hy_core.training import Objective, Recipe, TrainingBatch, Workload, seeded
from hy_core.training.materialise import tensors
from hy_core.vae import VAE, VAEConfig
from hy_core.weights import load_dit, load_port_weights, load_vae, save_port_weights
from torch import Tensor

from hy_train import repa
from hy_train.latents import LatentCache
from hy_train.objectives.batches import Rows
from hy_train.objectives.export import check_vae, write_model
from hy_train.objectives.feed import FlowBatch, FlowFeed, LoadEncoders
from hy_train.objectives.flow_config import FlowData, FlowOptions
from hy_train.objectives.vae import read_vae
from hy_train.planning import BucketPlan
from hy_train.sources import check_tables, open_sources, recipe_plugins
from hy_train.texts import TextCache

GUIDANCE = 6.0
"""The embedded guidance scale that a guidance-distilled network is fine-tuned at, as the released trainers do."""
_TEXT = 32  # tokens of a caption, for estimates
TIMES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""The times at which the loss is measured."""


class FlowObjective(Objective[FlowBatch]):
    """Velocity of noisy latents, given a caption and the conditions that the plugins of `[conditioning]` add.

    Fixed frames are left out of the loss; other places are weighted by what `Conditioner.training_condition` returns.
    """

    model: DiT
    options_type: ClassVar[type[FlowOptions]] = FlowOptions
    options: FlowOptions

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        super().__init__(recipe, folder)
        self.data = from_table(FlowData, recipe.data, "data")
        self.options = from_table(self.options_type, recipe.options, "options")
        self.base = models.find(self.data.model or recipe.init_from or "pocket")
        check_vae(self.base, self.data.vae)
        self.buckets = self.data.buckets
        plugins = recipe_plugins(recipe)
        names = [one.source or self.data.source for one in self.buckets]
        specs = [
            one.spec(self.data.source, recipe.seed, self.data.sources.get(name, {}), self.buckets)
            for one, name in zip(self.buckets, names, strict=True)
        ]
        self.sources = open_sources(specs, plugins)
        check_tables(self.data.sources, names)
        self.measured = self.measured_bucket()
        self.heldout = self._open_heldout(specs[self.measured], plugins)
        self.conditioners = [plugins.conditioners().pick(name).for_training() for name in recipe.conditioning]
        for name in (name for one in self.buckets for name in one.conditioning or ()):
            if name not in recipe.conditioning:
                raise UsageError(
                    f"data.buckets: conditioning {name!r} has no table", f"add [conditioning.{name}]"
                )
        self.metadata: dict[str, dict[str, str]] = {}
        self._features = 0  # of the targets of the REPA loss; 0 as long as they aren't known, or without one
        with torch.device("meta"):
            self.model = self.build(with_values=False)
        self.config = self.model.config
        self.targets = repa.find_targets(self.options.repa_targets) if self.options.repa_targets else None

    def measured_bucket(self) -> int:
        """Return the number of the bucket that the loss is measured on: the one that is drawn most often."""
        return max(range(len(self.buckets)), key=lambda number: self.buckets[number].sampling_weight)

    def _open_heldout(self, spec: SourceSpec, plugins: Plugins) -> DataSource | None:
        """Held-out clips in the shape of the measured bucket, if the source has any."""
        count = min(self.data.heldout, len(self.sources[self.measured]))
        if not count:
            return None
        try:
            return open_sources([replace(spec, split="heldout", count=count)], plugins)[0]
        except UsageError:  # too few files
            return None

    def build(self, with_values: bool) -> DiT:
        """Return a new network with all that is attached to it.

        It is built on torch's default device; weights of files are read only `with_values`. A subclass extends this
        method to attach modules, or to freeze parameters.
        """
        dit = self._network(with_values)
        for one in self.conditioners:
            self.metadata[one.name] = self._attach(dit, one, with_values)
        if self._features:
            repa.attach(dit, self.options.repa_block, self._features)
        return dit

    def initial_state(self) -> Mapping[str, Tensor]:
        """Return the values of all tensors: of any shape: those of `init_from`, or random ones."""
        torch.manual_seed(self.recipe.seed)
        return dict(tensors(self.build(with_values=True)))

    def _network(self, with_values: bool) -> DiT:
        """The network at the start of training: that of `init_from`, or one with random weights."""
        name = self.recipe.init_from
        if not name:
            return DiT(
                from_table(DiTConfig, {**asdict(DiTConfig.named["pocket"]), **self.recipe.model}, "model")
            )
        if self.recipe.model:
            raise UsageError(
                f"[model] is given, but init_from = {name!r} determines the model", "remove [model]"
            )
        found = models.find(name)
        return load_dit(found.dit, dtype=torch.float32) if with_values else DiT(models.configs(found)[0])

    def _attach(self, dit: DiT, conditioner: Conditioner, with_values: bool) -> dict[str, str]:
        """Attach a plugin's modules, with the weights that training starts from; return its file's metadata."""
        name = self.recipe.init_from
        folder = models.find(name).folder if name else None
        metadata = conditioner.attach_for_training(dit, self.recipe.conditioning[conditioner.name], folder)
        if with_values and (file := conditioner.weights(folder)):
            load_port_weights(dit, conditioner.name, file)
        return dict(metadata)

    def prepare(self) -> None:
        """Encode the clips of every bucket and their captions, once; report the clips that are left out."""
        cache = Path(self.data.cache).expanduser() if self.data.cache else self.folder
        vae = Path(self.data.vae) / "vae.safetensors" if self.data.vae else self.base.vae
        sources = [*self.sources, *([self.heldout] if self.heldout is not None else [])]
        self.latents = LatentCache(sources, cache / "latents", self._load_vae, models.fingerprint(vae))
        self.latents.fill()
        kinds = models.precision(self.base.layout)
        load = LoadEncoders(self.base.folder, str(kinds.device), kinds.text)
        texts = TextCache(cache / "texts", load, encoders_fingerprint(self.base.folder))
        self.feed = FlowFeed(self.recipe, self.folder, self.data, self.options, self.latents, texts)
        if self.data.captions:
            texts.fill(self.feed.captions())
        self._report()
        if self.conditioners:
            self.frozen = {"vae": self._load_vae().eval().requires_grad_(False)}
        if self.targets:
            bucket = next((number for number, one in enumerate(self.buckets) if one.repa), None)
            if bucket is None:
                raise UsageError(
                    "options.repa_targets is given, but every bucket has repa = false",
                    "remove repa = false from one",
                )
            batch = self.feed.make(Rows(bucket, self.latents.usable(bucket)[:1], [""]))
            self._features = repa.target_features(self.targets, batch, self.model).shape[-1]
            with self.model.device:
                repa.attach(self.model, self.options.repa_block, self._features)

    @property
    def repa_head(self) -> repa.RepaHead | None:
        """The head of the REPA loss, None without one."""
        return repa.head(self.model, self.options.repa_block) if self._features else None

    @property
    def vae(self) -> VAE | None:
        """The VAE that plugins encode further pictures with, None without plugins."""
        found = self.frozen.get("vae")
        assert found is None or isinstance(found, VAE)
        return found

    def _report(self) -> None:
        """Say what is trained on, and what is left out and why, in a line each; `clips.json` has all of it."""
        buckets = []
        for number, (bucket, source) in enumerate(zip(self.buckets, self.sources, strict=False)):
            failed = self.latents.failed[number]
            reasons = left_out(source)
            for why in failed.values():
                reasons[why] = reasons.get(why, 0) + 1
            shape = f"{bucket.frames}x{bucket.height}x{bucket.width}"
            buckets.append({"shape": shape, "clips": len(source) - len(failed), "left_out": reasons})
            for why, count in reasons.items():
                print(f"bucket {shape}: {count} clips left out: {why}", file=sys.stderr)
        write_json(self.folder / "clips.json", buckets)

    def without_networks(self) -> Self:
        """Return a copy for `batch` in another process, which holds what batches are made of alone."""
        other = super().without_networks()
        for name in ("conditioners", "targets", "sources", "latents"):
            other.__dict__.pop(name, None)
        return other

    def _load_vae(self) -> VAE:
        if not self.data.vae:
            return load_vae(self.base.vae, dtype=torch.float32).eval().requires_grad_(False)
        return read_vae(Path(self.data.vae))

    def batch(self, step: int, rank: int = 0, ranks: int = 1) -> FlowBatch:
        """Return clips of one bucket."""
        return self.feed.batch(step, rank, ranks)

    def loss(self, batch: FlowBatch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Return the mean squared error of the velocity, a scalar, with the REPA loss where the bucket has it."""
        batch, data = replace(batch, generator=generator), batch.latents
        rows, _, frames, *_ = data.shape
        time = sample_times(rows, self.options.timestep_sampling, self.options.shift, generator=generator).to(
            data.device
        )
        noise = torch.randn(data.shape, generator=generator, device=generator.device).to(data.device)
        cond = self.condition(batch)
        weight = self.add_conditions(batch, cond)
        if self.options.foreground_weight and batch.foreground is not None:
            places = 1 + self.options.foreground_weight * batch.foreground
            places = places / places.mean((2, 3, 4), keepdim=True)
            weight = places if weight is None else weight.to(places) * places
        head = self.repa_head
        aligned = self.targets if head is not None and self.buckets[batch.bucket].repa else None
        if aligned is not None:
            cond.set_adapter_inputs(repa.NAME, repa.target_features(aligned, batch, self.model))
        predicted = Denoiser(self.model, cond)(interpolate(data, noise, time), time)
        trained = [frame for frame in range(frames) if frame not in cond.fixed_frames]
        error = (predicted[:, :, trained] - velocity(data, noise)[:, :, trained]).square()
        if weight is not None:
            error = error * weight.to(error).expand(-1, -1, frames, -1, -1)[:, :, trained]
        flow = error.mean()
        if aligned is None or head is None or head.loss is None:
            return flow, {}
        alignment = head.loss
        loss = flow + self.options.repa_weight * alignment
        return loss, {"flow": flow.item(), "repa": alignment.item()}

    def add_conditions(
        self, batch: FlowBatch, cond: Condition, names: set[str | None] | None = None
    ) -> Tensor | None:
        """Let the plugins of the batch's bucket, or those of `names` alone, fill the condition.

        Returns the product of their loss weights, which broadcasts over latents [B, C, F, h, w]; None without any.
        """
        chosen = self.buckets[batch.bucket].conditioning
        weight: Tensor | None = None
        for one in self.conditioners:
            if (chosen is None or one.name in chosen) and (names is None or one.name in names):
                own = one.training_condition(batch, cond)
                if own is not None:
                    weight = own if weight is None else weight * own.to(weight)
        if self.conditioners and cond.condition_channels and cond.channel_condition is None:
            empty = torch.zeros(1, cond.condition_channels, cond.frames, *cond.size)
            cond.set_channel_condition("text-to-video", empty)
        return weight

    def condition(self, batch: TrainingBatch) -> Condition:
        """Return the condition of a batch with its text alone."""
        _, _, frames, height, width = batch.latents.shape
        return Condition(
            text=list(batch.text),
            pooled=batch.pooled,
            frames=frames,
            size=(height, width),
            patch=(self.config.patch[1], self.config.patch[2]),
            guidance=embedded_guidance(GUIDANCE).expand(batch.rows) if self.config.guidance else None,
            condition_channels=self.config.in_channels - self.config.out_channels,
            encoding=EncodingContext(vae=self.vae, folder=self.base.folder),
        )

    def workload(self, batch: FlowBatch) -> Workload:
        """Return the rows of a batch, the tokens of its clips, and the operations of a forward and a backward pass."""
        text = round(sum(len(row) for row in batch.text) / batch.rows)
        tokens, flops = self.cost(batch.latents.shape[2:], text)
        return Workload(batch.rows, batch.rows * tokens, batch.rows * flops)

    def cost(self, latents: Sequence[int], text: int) -> tuple[int, float]:
        """Return the tokens of a clip with latents of this size [F, h, w], and the operations to train on it once."""
        t, h, w = (size // patch for size, patch in zip(latents, self.config.patch, strict=True))
        # The backward pass has two products for one of the forward's.
        passes = 4 if self.model.checkpointing else 3
        return t * h * w, passes * forward_flops(self.config, t * h * w, text, t)

    def describe_buckets(self) -> tuple[DiTConfig, list[BucketPlan]]:
        """Return the network's configuration and what the batches of each bucket are, before data are read."""
        vae = self._vae_config()
        drawn = [one.sampling_weight * (1 - one.start_fraction) for one in self.buckets]
        found = []
        for bucket, weight in zip(self.buckets, drawn, strict=True):
            tokens, flops = self.cost(vae.latent_size(*bucket.shape), _TEXT)
            shape = "x".join(map(str, bucket.shape))
            rows = bucket.batch or self.recipe.batch
            found.append(BucketPlan(shape, rows, tokens, flops, weight / sum(drawn)))
        return self.config, found

    def _vae_config(self) -> VAEConfig:
        if not self.data.vae:
            return models.configs(self.base)[1]
        return VAEConfig.from_dict(read_json(Path(self.data.vae) / "vae.json"))

    def largest_batch(self) -> FlowBatch | None:
        """Return a batch of the bucket with the most tokens, if there are several."""
        if len(self.buckets) == 1:
            return None
        sizes = [
            self.feed.plan.size(number)
            * self.latents.get(number, self.latents.usable(number)[:1])[0, 0].numel()
            for number in range(len(self.buckets))
        ]
        bucket = int(np.argmax(sizes))
        indices = np.resize(self.latents.usable(bucket), self.feed.plan.size(bucket))
        rng = np.random.default_rng(0)
        return self.feed.make(
            Rows(bucket, indices, [self.feed.caption(bucket, int(i), rng) for i in indices])
        )

    def evaluate(self, rows: int = 64) -> dict[str, float]:
        """Return the loss at times 0.1 to 0.9 on the same clips, captions and noise each time, and the mean of these.

        The clips are held out (`heldout_loss_0.1`, ...), or, where the source holds none out, trained on (`loss_0.1`).
        """
        rng = np.random.default_rng(seeded(self.recipe.seed, 4))
        source, name = self.measured, "loss"
        if self.heldout is not None:
            trained_on = set(self.latents.keys(source, self.latents.usable(source)))
            held = set(self.latents.keys(len(self.sources), self.latents.usable(len(self.sources))))
            source, name = len(self.sources), "loss" if held & trained_on else "heldout_loss"
        indices = self.latents.usable(source)[:rows]
        prompts = [self.feed.caption(source, int(index), rng) for index in indices]
        made = self.feed.make(Rows(source, indices, prompts))
        batch = replace(made, bucket=self.measured).to(self.model.device)
        batch.generator.manual_seed(0)
        data, generator = batch.latents, batch.generator
        noise = torch.randn(data.shape, generator=generator).to(data.device)
        cond = self.condition(batch)
        # Plugins without modules only fix frames: they would make losses incomparable with those of other runs.
        self.add_conditions(batch, cond, {port_owner(key) for key in self.model.state_dict()})
        trained = [frame for frame in range(data.shape[2]) if frame not in cond.fixed_frames]
        denoiser, target = Denoiser(self.model, cond), velocity(data, noise)[:, :, trained]
        losses = {}
        for time in TIMES:
            times = torch.full((batch.rows,), time, device=data.device)
            predicted = denoiser(interpolate(data, noise, times), times)[:, :, trained]
            losses[f"{name}_{time}"] = F.mse_loss(predicted, target).item()
        return {**losses, name: sum(losses.values()) / len(losses)}

    def export(self, folder: Path) -> None:
        """Write a model folder for `hy generate --model FOLDER`: the DiT in bfloat16, the other parts of the base.

        It has the layout of the folder that training started from. Each plugin's modules are written to a file of
        their own, NAME.safetensors.
        """
        own = {k: v for k, v in self.model.state_dict().items() if port_owner(k) is None}
        state = {k: v.detach().to(torch.bfloat16).contiguous() for k, v in own.items()}
        write_model(self.base, folder, state, self.config.to_json(), self.recipe.name, self.data.vae)
        for name in self.metadata.keys() & {port_owner(k) for k in self.model.state_dict()}:
            save_port_weights(self.model, name, folder / f"{name}.safetensors", self.metadata[name])
