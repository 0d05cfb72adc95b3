"""Adapters: few trained weights beside the frozen ones of a DiT. LoRA, DoRA, LoKr, bottlenecks, and those of plugins.

An adapter of a linear layer computes the layer's output anew and merges into its weight without a rest; a bottleneck
has a nonlinearity, so it stays in the network, at the ports behind the blocks.
"""

from __future__ import annotations

from hy_core.adapters.attach import AdapterConfig, attach, detach, is_adapter_key, parts_of
from hy_core.adapters.bottleneck import Bottleneck
from hy_core.adapters.linear import DoRA, LinearAdapter, LoKr, LoRA
from hy_core.adapters.registry import AdapterKind, find_kind, kinds
from hy_core.adapters.targets import TARGETS, select_layers

__all__ = [
    "TARGETS",
    "AdapterConfig",
    "AdapterKind",
    "Bottleneck",
    "DoRA",
    "LinearAdapter",
    "LoKr",
    "LoRA",
    "attach",
    "detach",
    "find_kind",
    "is_adapter_key",
    "kinds",
    "parts_of",
    "select_layers",
]
