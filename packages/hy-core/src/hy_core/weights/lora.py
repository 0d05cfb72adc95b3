"""Low-rank weights (LoRA): read a file in any of the usual namings and add it to a DiT's own weights.

Seen in the wild: the official image-to-video effects (`Hunyuan_video_I2V_lora_double_blocks_0_...lora_down`), kohya's
(`lora_unet_...`), and PEFT's `lora_A`/`lora_B` after official, ComfyUI or diffusers names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from hy_core.dit import DiT
from hy_core.errors import HyError
from hy_core.weights.files import load_state
from hy_core.weights.keys import COMFYUI, DIFFUSERS, OFFICIAL, PREFIXES
from hy_core.weights.strict import finite

OFFICIAL_PREFIX = "Hunyuan_video_I2V_lora_"
UNDERSCORED = (OFFICIAL_PREFIX, "lora_unet_")
_PART = re.compile(r"(.+)\.(lora_down|lora_up|lora_A|lora_B)(?:\.default)?\.weight")


@dataclass
class Pair:
    """What is added to one layer elsewhere: scale * up @ down."""

    down: Tensor | None = None
    up: Tensor | None = None
    alpha: float | None = None


@dataclass(frozen=True)
class Target:
    """Rows of a layer of ours: `start` to `start + rows`; `swap` says that their two halves are exchanged."""

    layer: str
    start: int
    rows: int
    swap: bool = False


def merge(dit: DiT, path: str | Path, scale: float = 1.0) -> int:
    """Add a file's low-rank weights to a DiT in place; returns to how many layers.

    `alpha`, where a file has it, divides by the rank as usual; in official files it is ignored, as the official code
    ignores it. HyError in one line if a layer isn't this network's, a shape doesn't fit, or there is nothing to add.
    """
    pairs, targets = read(path), layers(dit)
    plan = []
    for name, pair in pairs.items():
        target = targets.get(name)
        if target is None:
            raise HyError(
                f"{path} is for a layer that this network hasn't: {name}", "it is another model's LoRA"
            )
        if pair.down is None or pair.up is None:
            raise HyError(f"{path} has only half of {name}", "copy or fetch it again")
        weight = dit.get_submodule(target.layer).weight
        up, down = (
            pair.up.flatten(1),
            pair.down.flatten(1),
        )  # a convolution's kernel is a row, as in its weight
        inputs = weight[0].numel()
        if up.shape[0] != target.rows or down.shape[1] != inputs or up.shape[1] != down.shape[0]:
            raise HyError(
                f"{path}: {name} adds {up.shape[0]}x{down.shape[1]} to a layer of {target.rows}x{inputs}",
                "it is the LoRA of a model of another size",
            )
        if not (finite(up) and finite(down)):
            raise HyError(f"{path}: {name} has values that aren't numbers", "the file was saved broken")
        plan.append((target, weight, up, down, pair.alpha))
    with torch.no_grad():
        for target, weight, up, down, alpha in plan:
            factor = scale if alpha is None else scale * alpha / down.shape[0]
            change = factor * (up.to(weight.device).float() @ down.to(weight.device).float())
            change = torch.cat(change.chunk(2)[::-1]) if target.swap else change
            rows = weight[target.start : target.start + target.rows]
            rows.copy_(rows.float() + change.view_as(rows))
    return len(plan)


def read(path: str | Path) -> dict[str, Pair]:
    """The pairs of a file by their layer's name, without prefixes."""
    pairs: dict[str, Pair] = {}
    official = False
    for key, tensor in load_state(path).items():
        official = official or key.startswith(OFFICIAL_PREFIX)
        if found := _PART.fullmatch(key):
            name, kind = found.groups()
            pair = pairs.setdefault(bare(name), Pair())
            if kind in ("lora_down", "lora_A"):
                pair.down = tensor
            else:
                pair.up = tensor
        elif key.endswith(".alpha") and tensor.numel() == 1:
            pairs.setdefault(bare(key.removesuffix(".alpha")), Pair()).alpha = float(tensor)
        else:
            raise HyError(f"{path} is no LoRA: it has {key}", "for a whole network use --weights")
    if not pairs:
        raise HyError(f"{path} is no LoRA: it is empty")
    if official:
        for pair in pairs.values():
            pair.alpha = None
    return pairs


def bare(name: str) -> str:
    """A layer's name as `layers` knows it: without the file's prefix."""
    for prefix in (*UNDERSCORED, *PREFIXES):
        if prefix and name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def layers(dit: DiT) -> Mapping[str, Target]:
    """Every linear layer of a DiT, and the convolution that embeds patches, under all names that files use for it."""
    found: dict[str, Target] = {}
    for layer, module in dit.named_modules():
        if not isinstance(module, nn.Linear | nn.Conv3d):
            continue
        height = len(module.weight)
        for table in (OFFICIAL, COMFYUI, DIFFUSERS):
            if (source := table.source(f"{layer}.weight")) is None:
                continue
            start = 0
            for index, key in enumerate(source.keys):
                last = index == len(source.keys) - 1
                rows = height - start if last else dit.width
                target = Target(layer, start, rows, source.swap)
                name = key.removesuffix(".weight")
                found[name] = found[name.replace(".", "_")] = target
                start += rows
    return found
