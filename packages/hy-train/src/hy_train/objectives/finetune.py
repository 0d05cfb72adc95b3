"""Fine-tune a model on clips of one's own: adapters, or the whole DiT; with previews and a held-out loss."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from hy_core import models
from hy_core.adapters import AdapterConfig, attach, is_adapter_key, parts_of
from hy_core.dit import DiT
from hy_core.errors import HyError, UsageError
from hy_core.training import Recipe
from hy_core.weights import load_dit
from hy_core.weights.lora import SPELLINGS, can_write, save_adapter

from hy_train.objectives.flow import FlowObjective
from hy_train.objectives.flow_config import FlowOptions
from hy_train.previews import preview


@dataclass(frozen=True)
class FinetuneOptions(FlowOptions):
    """The table `options` of the objective `finetune`: those of `flow`, and these.

    `adapter` is a kind of `hy_core.adapters` with `rank`, `alpha` (the rank if 0) and `targets`; "" trains the whole
    DiT. `checkpointing` recomputes blocks in the backward pass, which saves memory. `previews` are prompts of which a
    clip is made at each measurement.
    """

    adapter: str = "lora"
    rank: int = 16
    alpha: float = 0.0
    targets: tuple[str, ...] = ("blocks",)
    checkpointing: bool = False
    previews: tuple[str, ...] = ()


class FinetuneObjective(FlowObjective):
    """Flow matching on one's own clips.

    With an adapter the DiT and the modules of plugins are frozen, and checkpoints hold the adapter alone.
    """

    options_type: ClassVar[type[FlowOptions]] = FinetuneOptions
    options: FinetuneOptions

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        if not recipe.init_from:
            raise UsageError("init_from names no model to fine-tune", 'such as init_from = "pocket"')
        super().__init__(recipe, folder)

    def build(self, with_values: bool) -> DiT:
        dit = super().build(with_values)
        dit.checkpointing = self.options.checkpointing
        if self.options.adapter:
            attach(dit, self._config())
            self.trained = {key for key in dit.state_dict() if is_adapter_key(key)}
        return dit

    def _config(self) -> AdapterConfig:
        one = self.options
        return AdapterConfig(one.adapter, one.rank, one.alpha, one.targets)

    def _network(self, with_values: bool) -> DiT:
        found = models.find(self.recipe.init_from)
        if not with_values:
            return DiT(models.configs(found)[0])
        frozen = self.options.adapter and str(getattr(self.recipe, "precision", "")).startswith("bf16")
        return load_dit(found.dit, dtype=torch.bfloat16 if frozen else torch.float32)

    def measured_bucket(self) -> int:
        """Return the bucket of one's own clips: the first; others hold what the model knows already."""
        return 0

    def evaluate(self, rows: int = 32) -> dict[str, float]:
        """Return the loss at fixed times on held-out clips (training clips without any), and write the previews."""
        found = super().evaluate(rows)
        if self.options.previews:
            self._preview()
        return found

    def _preview(self) -> None:
        """Write a picture with frames of a clip of each preview prompt into `previews`."""
        path = self.folder / "previews" / f"{self.step:06d}.png"
        path.parent.mkdir(exist_ok=True)
        try:
            with torch.random.fork_rng(devices=[]):
                preview(self.model, self.base, self.buckets[0].shape, self.options.previews, path)
        except HyError as error:
            # A preview is for people: the training is worth more than the picture.
            (self.folder / "previews" / "errors.txt").open("a").write(f"{path.name}: {error.message}\n")

    def export(self, folder: Path) -> None:
        """Write the adapter as NAME.safetensors for `hy generate --lora`, and beside it for other programs.

        These are NAME-diffusers, NAME-comfyui, NAME-kohya and NAME-official, as far as they load this kind. Without an
        adapter, a model folder.
        """
        if not self.options.adapter:
            super().export(folder)
            return
        folder.mkdir(parents=True, exist_ok=True)
        name = self.recipe.name
        dtype = torch.float32 if self.base.layout == "pocket" else torch.bfloat16
        about = {"hy.base": self.base.name, "hy.prompt": (self.options.previews or ("",))[0][:500]}
        save_adapter(self.model, folder / f"{name}.safetensors", metadata=about, dtype=dtype)
        layers = parts_of(self.model)
        for spelling in SPELLINGS:
            if spelling != "hy" and layers and can_write(layers, spelling):
                save_adapter(self.model, folder / f"{name}-{spelling}.safetensors", spelling, about, dtype)
