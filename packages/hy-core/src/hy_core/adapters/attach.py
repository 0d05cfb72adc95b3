"""Put trainable adapters into a DiT, and read them out again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from torch import Tensor, nn

from hy_core.adapters.bottleneck import Bottleneck
from hy_core.adapters.linear import LinearAdapter
from hy_core.adapters.registry import AdapterKind, find_kind
from hy_core.adapters.targets import TARGETS, select_layers
from hy_core.dit.blocks import DoubleBlock, SingleBlock
from hy_core.dit.layers import Linear
from hy_core.errors import UsageError
from hy_core.tables import bounded

if TYPE_CHECKING:
    from hy_core.dit import DiT


@dataclass(frozen=True)
class AdapterConfig:
    """What is attached where: a kind by its name, the rank, `alpha` (the rank if 0), and layers.

    `targets` are sets of layers (attention, blocks, all) or patterns of their names; for bottlenecks, of blocks.
    """

    kind: str = "lora"
    rank: int = bounded(16, 1, 65536)
    alpha: float = bounded(0.0, 0, 1e6)
    targets: tuple[str, ...] = ("blocks",)


def attach(dit: DiT, config: AdapterConfig) -> list[str]:
    """Freeze a DiT and attach adapters, which alone are trained; returns the names of their places.

    `UsageError` for an unknown kind, for targets that match nothing, and for a network that has adapters already.
    """
    kind = find_kind(config.kind)
    if any(is_adapter_key(key) for key in dit.state_dict()):
        raise UsageError("the network has adapters already", "merge them first, or train one at a time")
    dit.requires_grad_(False)
    if issubclass(kind, Bottleneck):
        return _attach_blocks(dit, kind, config)
    names = select_layers(dit, config.targets)
    for name in names:
        layer = dit.get_submodule(name)
        assert isinstance(layer, Linear)
        layer.adapter = kind.build(layer.weight, config.rank, config.alpha or config.rank)
    return names


def _attach_blocks(dit: DiT, kind: type[Bottleneck], config: AdapterConfig) -> list[str]:
    blocks = [
        f"{stack}.{i}"
        for stack in ("double_blocks", "single_blocks")
        for i in range(len(getattr(dit, stack)))
    ]
    patterns = [one for target in config.targets for one in (("*",) if target in TARGETS else (target,))]
    chosen = [name for name in blocks if any(fnmatchcase(name, one) for one in patterns)]
    if not chosen:
        raise UsageError(f"targets: {patterns} match no block", f"such as {', '.join(blocks[:2])}")
    for name in chosen:
        block = dit.get_submodule(name)
        assert isinstance(block, DoubleBlock | SingleBlock)
        with dit.device:
            block.after.attach(config.kind, kind(dit.width, config.rank))
    return chosen


def is_adapter_key(key: str) -> bool:
    """Return whether a key of a DiT's state dict belongs to an adapter: of a linear layer, or a bottleneck."""
    return re.search(r"(?:^|\.)adapter\.|\.after\.bottleneck(?:-\d+)?\.", key) is not None


def adapters(dit: nn.Module) -> dict[str, LinearAdapter]:
    """Return the adapters of linear layers by the names of the layers."""
    return {
        name: module.adapter
        for name, module in dit.named_modules()
        if isinstance(module, Linear) and isinstance(module.adapter, LinearAdapter)
    }


def parts_of(dit: nn.Module) -> Mapping[str, Mapping[str, Tensor]]:
    """Return the tensors of the adapters of linear layers, by layer and part (see `LinearAdapter.parts`).

    Tensors are those of `LinearAdapter.parts`: down [rank, inputs], up [rows, rank], ...
    """
    return {name: adapter.parts() for name, adapter in adapters(dit).items()}


def detach(dit: DiT) -> None:
    """Take all adapters out again: the network is what it was before."""
    for module in dit.modules():
        if isinstance(module, Linear):
            module.adapter = None
    for block in (*dit.double_blocks, *dit.single_blocks):
        for name in [name for name, module in block.after.items() if isinstance(module, Bottleneck)]:
            block.after.detach(name)


__all__ = ["AdapterConfig", "AdapterKind", "adapters", "attach", "detach", "is_adapter_key", "parts_of"]
