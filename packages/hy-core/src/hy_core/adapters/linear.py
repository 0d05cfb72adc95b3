"""Adapters of one linear layer: LoRA, DoRA and LoKr. All are the identity at first."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LinearAdapter(nn.Module):
    """Change what a linear layer of weight [rows, inputs] returns. Subclasses override `forward` and `parts`.

    `rank` is at most the smaller side of the weight; the change counts `alpha` / `rank`.
    """

    #: The name in recipes, options and files.
    kind: ClassVar[str]

    def __init__(self, rank: int, alpha: float) -> None:
        super().__init__()
        self.rank, self.scale = rank, alpha / rank

    @classmethod
    def build(cls, weight: Tensor, rank: int, alpha: float) -> LinearAdapter:
        """Return an adapter for a layer's weight [rows, inputs], on its device; `alpha` counts at this rank."""
        raise NotImplementedError

    def forward(self, x: Tensor, y: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the adapted output [..., rows] of a layer that maps x [..., inputs] to y [..., rows].

        The weight is [rows, inputs], the bias [rows].
        """
        raise NotImplementedError

    def parts(self) -> dict[str, Tensor]:
        """Return the tensors as `hy_core.weights.lora` names them; with them the change counts once, without alpha.

        down [rank, inputs] and up [rows, rank]; magnitude [rows]; lokr_w1 [a, b] and lokr_w2 [rows / a, inputs / b].
        """
        raise NotImplementedError


class LoRA(LinearAdapter):
    """W + scale * up @ down (arXiv:2106.09685); `up` is zero at first."""

    kind = "lora"

    def __init__(self, rows: int, inputs: int, rank: int, alpha: float) -> None:
        super().__init__(rank, alpha)
        self.down = nn.Parameter(torch.empty(rank, inputs))
        self.up = nn.Parameter(torch.zeros(rows, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    @classmethod
    def build(cls, weight: Tensor, rank: int, alpha: float) -> LinearAdapter:
        limited = min(rank, *weight.shape)
        rows, inputs = weight.shape
        return cls(rows, inputs, limited, alpha * limited / rank).to(weight.device)

    def forward(self, x: Tensor, y: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return y [..., rows] with the low-rank change for x [..., inputs]; weight and bias are not read."""
        return y + self.change(x).to(y.dtype)

    def change(self, x: Tensor) -> Tensor:
        """Map x [..., inputs] to the change [..., rows]."""
        return F.linear(F.linear(x.to(self.down.dtype), self.down), self.up) * self.scale

    def parts(self) -> dict[str, Tensor]:
        return {"down": self.down.detach(), "up": self.up.detach() * self.scale}


class DoRA(LoRA):
    """Rows of W + scale * up @ down, normalised, times learned magnitudes (arXiv:2402.09353).

    The norms take part in no gradient (section 4.3 there).
    """

    kind = "dora"

    def __init__(self, rows: int, inputs: int, rank: int, alpha: float) -> None:
        super().__init__(rows, inputs, rank, alpha)
        self.magnitude = nn.Parameter(torch.ones(rows))

    @classmethod
    def build(cls, weight: Tensor, rank: int, alpha: float) -> LinearAdapter:
        found = super().build(weight, rank, alpha)
        assert isinstance(found, DoRA)
        found.magnitude = nn.Parameter(weight.detach().float().norm(dim=1))
        return found

    def forward(self, x: Tensor, y: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the rescaled output for x [..., inputs], y [..., rows], weight [rows, inputs] and bias [rows]."""
        with torch.no_grad():
            moved = weight.float() + self.scale * (self.up.float() @ self.down.float())
            norm = moved.norm(dim=1).clamp(min=torch.finfo(torch.float32).tiny)
        linear = (y if bias is None else y - bias) + self.change(x).to(y.dtype)
        out: Tensor = linear * (self.magnitude / norm).to(y.dtype)
        return out if bias is None else out + bias

    def parts(self) -> dict[str, Tensor]:
        return {**super().parts(), "magnitude": self.magnitude.detach()}


class LoKr(LinearAdapter):
    """W + scale * kron(w1, w2) (LyCORIS, arXiv:2309.14859), with w2 = up @ down where the rank is below its sides.

    w1 is about `rank`-sided (a divisor of the layer's sides near it) and random, w2 is zero at first.
    """

    kind = "lokr"

    def __init__(
        self, outer: tuple[int, int], inner: tuple[int, int], rank: int, alpha: float, split: bool
    ) -> None:
        super().__init__(rank, alpha)
        self.w1 = nn.Parameter(torch.empty(outer))
        nn.init.kaiming_uniform_(self.w1, a=math.sqrt(5))
        self.w2 = None if split else nn.Parameter(torch.zeros(inner))
        self.w2_down = nn.Parameter(torch.empty(rank, inner[1])) if split else None
        self.w2_up = nn.Parameter(torch.zeros(inner[0], rank)) if split else None
        if self.w2_down is not None:
            nn.init.kaiming_uniform_(self.w2_down, a=math.sqrt(5))

    @classmethod
    def build(cls, weight: Tensor, rank: int, alpha: float) -> LinearAdapter:
        rows, inputs = weight.shape
        outer = (_factor(rows), _factor(inputs))
        inner = (rows // outer[0], inputs // outer[1])
        split = rank < min(inner) / 2
        return cls(outer, inner, rank, alpha, split).to(weight.device)

    def forward(self, x: Tensor, y: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return y [..., rows] with the change for x [..., inputs]; weight and bias are not read."""
        w2 = self._inner()
        inner = x.to(w2.dtype).unflatten(-1, (self.w1.shape[1], w2.shape[1])) @ w2.T  # [..., b, rows / a]
        change = torch.einsum("...bi,ab->...ai", inner, self.w1).flatten(-2)
        return y + (change * self.scale).to(y.dtype)

    def _inner(self) -> Tensor:
        if self.w2 is not None:
            return self.w2
        assert self.w2_up is not None and self.w2_down is not None
        return self.w2_up @ self.w2_down

    def parts(self) -> dict[str, Tensor]:
        return {"lokr_w1": self.w1.detach(), "lokr_w2": self._inner().detach() * self.scale}


def _factor(size: int, most: int = 16) -> int:
    """The largest divisor of a side that is at most `most`, as LyCORIS' factor."""
    return max(one for one in range(1, most + 1) if size % one == 0)
