"""Which layers of a DiT an adapter is for."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from hy_core.errors import UsageError
from hy_core.options import nearest

if TYPE_CHECKING:
    from torch import nn

#: Named sets of layers, as patterns of their names. The official I2V effects adapt "all".
TARGETS: dict[str, tuple[str, ...]] = {
    "attention": ("*_attn_qkv", "*_attn_proj", "single_blocks.*.linear[12]"),
    "blocks": (
        "double_blocks.*_attn_qkv",
        "double_blocks.*_attn_proj",
        "double_blocks.*.fc[12]",
        "single_blocks.*.linear[12]",
    ),
    "all": ("*",),
}


def select_layers(dit: nn.Module, targets: Sequence[str]) -> list[str]:
    """Return the names of the linear layers that sets or patterns (`*`, `?`, `[...]`) choose, in the network's order.

    `UsageError` for a pattern that matches no layer.
    """
    from hy_core.dit.layers import Linear

    names = [
        name for name, module in dit.named_modules() if type(module) is Linear and ".adapter." not in name
    ]
    chosen: set[str] = set()
    for target in targets:
        found = [
            name
            for pattern in TARGETS.get(target, (target,))
            for name in names
            if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")
        ]
        if not found:
            near = nearest(target, [*TARGETS, *names])
            raise UsageError(
                f"targets: {target!r} matches no linear layer of the network",
                f"did you mean {near}?"
                if near
                else f"use {', '.join(TARGETS)}, or a layer such as {names[0]}",
            )
        chosen.update(found)
    return [name for name in names if name in chosen]
