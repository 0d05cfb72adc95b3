"""Adapters: a driver (speech, expression, a further task) changes the video's tokens inside its mask.

B rows, F latent frames of the video, S patches of a frame, D width, K sources of a driver (speakers), n tokens of a
frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from hy_core.dit import CrossAttend
from hy_core.errors import ConflictError, PluginError
from torch import Tensor, nn

Gate = Literal["none", "scalar", "channel"]


def make_gate(kind: Gate, width: int) -> nn.Parameter | None:
    """Return a learnt factor on an adapter's change: none, one number, or one per channel [width]; initially 1.

    The adapter's last layer is initially 0: with both at 0, neither would get a gradient.
    """
    if kind == "none":
        return None
    return nn.Parameter(torch.ones(1 if kind == "scalar" else width))


class Attend(nn.Module):
    """Cross-attention from the patches of each frame to the driver's tokens of that frame; initially zero.

    Inputs: `tokens` [B, K, F, n, features] and `mask` [B, K, F, S, 1]. The sources share the weights; their changes
    are multiplied by their masks and added (facts 1.3.2).
    """

    def __init__(
        self,
        features: int,
        width: int,
        heads: int = 1,
        inner: int | None = None,
        bias: bool = False,
        eps: float = 1e-6,
        gate: Gate = "none",
    ) -> None:
        super().__init__()
        self.attend = CrossAttend(features, width, heads, inner, bias=bias, norm_input=True, eps=eps)
        self.gate = make_gate(gate, width)

    def forward(self, x: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the masked change of x [B, F, S, D]."""
        total = torch.zeros_like(x)
        for tokens, mask in zip(inputs["tokens"].unbind(1), inputs["mask"].to(x).unbind(1), strict=True):
            total = torch.where(mask != 0, total + self.attend.change(x, tokens) * mask, total)
        return total if self.gate is None else total * self.gate


class Bottleneck(nn.Module):
    """Down-projection, ReLU, up-projection: the adapter of a further task; initially zero.

    Input: `mask` [B, K, F, S, 1], summed over K; without one it acts everywhere.
    """

    def __init__(self, width: int, rank: int = 64, gate: Gate = "scalar") -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.down = nn.Linear(width, rank)
        self.up = nn.Linear(rank, width)
        self.gate = make_gate(gate, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the masked change of x [B, F, S, D]."""
        change = self.up(F.relu(self.down(self.norm(x))))
        change = change if self.gate is None else change * self.gate
        if "mask" not in inputs:
            return change
        mask = inputs["mask"].sum(1).to(x)
        return torch.where(mask != 0, change * mask, 0.0)


class Adapters(nn.ModuleDict):
    """The adapters of several tasks at one port: each reads the same x, and their changes are summed.

    Inputs: a mapping from task to that adapter's inputs, with an optional `strength` (a number). A task without inputs
    has no effect. Context frames, which precede the video's, stay as they are, and so does x, to the bit, where all
    masks are 0.
    """

    def attach(self, task: str, module: nn.Module) -> None:
        """Add a task's adapter: ConflictError if there is one."""
        if task in self:
            raise ConflictError(f"two adapters for the task {task!r} at one port")
        self[task] = module

    def detach(self, task: str) -> nn.Module:
        """Remove and return a task's adapter; PluginError if there is none."""
        if task not in self:
            raise PluginError(f"no adapter for the task {task!r} is attached here")
        return self.pop(task)

    def forward(self, x: Tensor, inputs: Mapping[str, Any]) -> Tensor:
        """Add what the adapters of all tasks with inputs make of x [B, F, S, D]. Returns the same shape."""
        given = {task: inputs[task] for task in self if inputs.get(task) is not None}
        if not given:
            return x
        frames = inputs["frames"]
        video, changes = x[:, x.shape[1] - frames :], []
        open_ = video.new_zeros((), dtype=torch.bool)
        for task, one in given.items():
            changes.append(self[task](video, one) * one.get("strength", 1.0))
            open_ = open_ | ((one["mask"].to(x.device) != 0).any(1) if "mask" in one else True)
        video = torch.where(open_, video + sum(changes[1:], changes[0]).to(x.dtype), video)
        return torch.cat((x[:, : x.shape[1] - frames], video), dim=1)
