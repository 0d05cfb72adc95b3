"""Save the adapters of a DiT, and attach those that can't be merged again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from hy_core.adapters import Bottleneck, find_kind, parts_of
from hy_core.dit.blocks import DoubleBlock, SingleBlock
from hy_core.errors import HyError, UsageError
from hy_core.weights.files import Checkpoint
from hy_core.weights.lora.write import write
from hy_core.weights.save import save_safetensors
from hy_core.weights.strict import finite

if TYPE_CHECKING:
    from hy_core.dit import DiT

#: The metadata key that names the kind of a file's adapters.
KIND = "hy.adapter"
_BLOCK = re.compile(
    r"((?:double|single)_blocks\.\d{1,4})\.(down\.weight|down\.bias|up\.weight|up\.bias|gate)"
)
_PARTS = {"down.weight", "down.bias", "up.weight", "up.bias", "gate"}


def save_adapter(
    dit: DiT,
    path: str | Path,
    spelling: str = "hy",
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write the adapters attached to a DiT, for `hy generate --lora` or the program of another spelling.

    `UsageError` if it has none, or for a spelling whose program can't load this kind.
    """
    state = {}
    kind = ""
    for stack in ("double_blocks", "single_blocks"):
        for number, block in enumerate(getattr(dit, stack)):
            for name, module in block.after.items():
                if isinstance(module, Bottleneck):
                    kind = name
                    for key, tensor in module.state_dict().items():
                        state[f"{stack}.{number}.{key}"] = tensor.detach().to(dtype)
    if not state:
        write(path, parts_of(dit), dit.width, spelling, metadata, dtype)
        return
    if spelling != "hy":
        raise UsageError(f"{path}: {spelling} can't load a {kind}", "bottlenecks are hy's own: use hy")
    save_safetensors(path, state, {KIND: kind, **(metadata or {})})


def attach_trained(dit: DiT, checkpoint: Checkpoint, path: str | Path, scale: float) -> int:
    """Attach the bottlenecks of a file to a DiT, with `scale` as their strength; returns their number.

    `HyError` if the kind isn't known, a block isn't this network's, or a tensor is missing, misshapen or not finite;
    the network is unchanged then.
    """
    name = checkpoint.metadata[KIND]
    kind = find_kind(name)
    if not issubclass(kind, Bottleneck):
        raise HyError(
            f"{path}: adapters of the kind {name!r} aren't attached to blocks", "the file was saved broken"
        )
    blocks: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in checkpoint.tensors.items():
        if (found := _BLOCK.fullmatch(key)) is None:
            raise HyError(
                f"{path} has {key[:100]}, which is no part of a {name}", "the file was saved broken"
            )
        blocks.setdefault(found[1], {})[found[2]] = tensor
    made = {}
    for place, parts in blocks.items():
        stack, _, number = place.partition(".")
        if int(number) >= len(getattr(dit, stack)):
            raise HyError(
                f"{path} is for a layer that this network doesn't have: {place}",
                "it is another model's adapter",
            )
        if parts.keys() != _PARTS:
            raise HyError(f"{path}: {place}: only part of it is there", "the file was saved broken")
        rank = len(parts["down.weight"])
        with torch.device("meta"):
            module = kind(dit.width, rank)
        for key, wanted in module.state_dict().items():
            if (
                parts[key].shape != wanted.shape
                or not parts[key].is_floating_point()
                or not finite(parts[key])
            ):
                raise HyError(
                    f"{path}: {place}: its {key} is {list(parts[key].shape)} where {list(wanted.shape)} finite "
                    "numbers belong",
                    "it is another model's adapter, or was saved broken",
                )
        module.load_state_dict({k: v.to(dit.device, dit.dtype) for k, v in parts.items()}, assign=True)
        module.strength = scale
        made[place] = module.eval().requires_grad_(False)
    free = 1
    used = {one for block in (*dit.double_blocks, *dit.single_blocks) for one in block.after}
    while (label := name if free == 1 else f"{name}-{free}") in used:
        free += 1
    for place, module in made.items():
        block = dit.get_submodule(place)
        assert isinstance(block, DoubleBlock | SingleBlock)
        block.after.attach(label, module)
    return len(made)
