"""Adapters: what a driver (speech, expression, a task of one's own) adds to the tokens of the video, inside its mask.

B rows, F frames of the video, S patches of a frame, D width, K sources of one driver (speakers), n tokens of a frame.
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
    """A factor on what an adapter adds, 1 at first: none, one number, or one for each channel.

    It starts at 1 because the adapter's last layer starts at 0: with both at 0 neither would get a gradient.
    """
    if kind == "none":
        return None
    return nn.Parameter(torch.ones(1 if kind == "scalar" else width))


class Attend(nn.Module):
    """Let the patches of each frame attend to that frame's tokens of the driver; zero at first.

    The feed is a mapping: `tokens` [B, K, F, n, features] and `mask` [B, K, F, S, 1]. The sources share the weights,
    and each adds what it says, times its mask (facts 1.3.2).
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

    def forward(self, x: Tensor, feed: Mapping[str, Tensor]) -> Tensor:
        """The change of x [B, F, S, D], already masked."""
        total = torch.zeros_like(x)
        for tokens, mask in zip(feed["tokens"].unbind(1), feed["mask"].to(x).unbind(1), strict=True):
            total = torch.where(mask != 0, total + self.attend.change(x, tokens) * mask, total)
        return total if self.gate is None else total * self.gate


class Bottleneck(nn.Module):
    """Down, ReLU, up: a task's own small network at any block; zero at first (the seed report's adapter).

    The feed is a mapping with `mask` [B, K, F, S, 1], of which the sum counts; without one it acts everywhere.
    """

    def __init__(self, width: int, rank: int = 64, gate: Gate = "scalar") -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.down = nn.Linear(width, rank)
        self.up = nn.Linear(rank, width)
        self.gate = make_gate(gate, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor, feed: Mapping[str, Tensor]) -> Tensor:
        """The change of x [B, F, S, D], already masked."""
        change = self.up(F.relu(self.down(self.norm(x))))
        change = change if self.gate is None else change * self.gate
        if "mask" not in feed:
            return change
        mask = feed["mask"].sum(1).to(x)
        return torch.where(mask != 0, change * mask, 0.0)


class Adapters(nn.ModuleDict):
    """The adapters of several tasks side by side at one port: each reads the same x, and what they add is summed.

    The feed is a mapping from task to that adapter's feed, with an optional `strength` (a number). A task that isn't
    fed does nothing; frames of context, which stand before the video's, are left alone. Where no mask is open,
    x stays as it is, to the bit.
    """

    def attach(self, task: str, module: nn.Module) -> None:
        """Add a task's adapter: ConflictError if there is one."""
        if task in self:
            raise ConflictError(f"two adapters for the task {task!r} at one port")
        self[task] = module

    def detach(self, task: str) -> nn.Module:
        """Take a task's adapter out; the others, and the network, stay as they are."""
        if task not in self:
            raise PluginError(f"no adapter for the task {task!r} is attached here")
        return self.pop(task)

    def forward(self, x: Tensor, feed: Mapping[str, Any]) -> Tensor:
        adapter_inputs = {task: feed[task] for task in self if feed.get(task) is not None}
        if not adapter_inputs:
            return x
        frames = feed["frames"]
        video, changes, open_ = x[:, x.shape[1] - frames :], [], None
        for task, one in adapter_inputs.items():
            changes.append(self[task](video, one) * one.get("strength", 1.0))
            here = (
                (one["mask"].to(x.device) != 0).any(1)
                if "mask" in one
                else video.new_ones((), dtype=torch.bool)
            )
            open_ = here if open_ is None else open_ | here
        video = torch.where(open_, video + sum(changes[1:], changes[0]).to(x.dtype), video)
        return torch.cat((x[:, : x.shape[1] - frames], video), dim=1)
