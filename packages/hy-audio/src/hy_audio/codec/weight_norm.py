"""Weight-normed checkpoints into plain layers: each weight is put together once, while loading.

A weight-normed layer is stored as a length g and a direction v for each of its first dimension's entries, its
output channels, or the input channels of a transposed convolution: weight = v * g / |v|.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from hy_core.weights.keys import Source
from torch import Tensor

#: How files name g and v: torch's old weight norm, and its new one as a parametrisation.
_PAIRS = (
    ("weight_g", "weight_v"),
    ("parametrizations.weight.original0", "parametrizations.weight.original1"),
)


@dataclass(frozen=True)
class WeightNorm(Source):
    """A weight made of the pair (g, v)."""

    def build(self, parts: list[Tensor]) -> Tensor:
        g, v = parts
        return fold_weight_norm(g, v)

    def shape(self, shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
        return shapes[1]


def fold_weight_norm(g: Tensor, v: Tensor) -> Tensor:
    """v * g / |v|, the norm taken over all dimensions but the first, in fp32 at least."""
    kind = torch.promote_types(v.dtype, torch.float32)
    wide = v.to(kind)
    return (wide * (g.to(kind) / wide.flatten(1).norm(dim=1).view(-1, *[1] * (v.dim() - 1)))).to(v.dtype)


def weight_norm_source(
    keys: Collection[str], rename: Callable[[str], str] = lambda key: key
) -> Callable[[str], Source | None]:
    """Where a plain network's parameters are in a file with these `keys`, weight-normed or already folded.

    `rename` turns a parameter's name into the file's; the result goes to `hy_core.weights.strict.fill`.
    """
    keys = frozenset(keys)

    def source(key: str) -> Source:
        key = rename(key)
        if key not in keys and key.endswith(".weight"):
            layer = key.removesuffix("weight")
            for g, v in _PAIRS:
                if layer + v in keys:
                    return WeightNorm((layer + g, layer + v))
        return Source((key,))

    return source
