"""Places in the network where plugins attach modules, and the two adapters that most of them need."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hy_core.errors import ConflictError, PluginError
from hy_core.guard import blame


class Port(nn.ModuleDict):
    """A named place where plugins attach modules. Empty, it is the identity.

    Modules are called in the order of attachment as `module(x, adapter_inputs[name])` and return a tensor of x's shape
    and dtype; modules of a plugin without adapter inputs are skipped, unless they are `unconditional`: then
    they get None. Their parameters are saved under the port's key and the plugin's name.
    """

    def attach(self, name: str, module: nn.Module) -> None:
        """Add a module under a plugin's name: ConflictError if it is taken, PluginError if unusable."""
        if name in self:
            raise ConflictError(f"two plugins are called {name!r} at one port", hint="rename one of them")
        try:
            self[name] = module
        except KeyError:
            raise PluginError(f"{name!r} can't be a name at a port", hint="choose another") from None

    def detach(self, name: str) -> nn.Module:
        """Take a module out again; the network is what it was before."""
        if name not in self:
            raise PluginError(f"nothing called {name!r} is attached at this port")
        return self.pop(name)

    def forward(self, x: Tensor, adapter_inputs: Mapping[str, Any]) -> Tensor:
        """Call the attached modules in order on x, [B, F, S, D] or [B, F, D]. Returns the same shape."""
        for name, module in tuple(self.items()):  # another thread may attach modules meanwhile
            if name in adapter_inputs or getattr(module, "unconditional", False):
                x = called(name, module, x, adapter_inputs.get(name))
        return x


class AdapterInputPort(Port):
    """Where a plugin's module transforms its adapter inputs for its modules at other ports, once per run.

    Modules are called as `module(inputs)`. Inputs of plugins without a module here are passed on as they are.
    """

    def forward(self, adapter_inputs: Mapping[str, Any]) -> dict[str, Any]:  # type: ignore[override]
        return {
            name: called(name, self[name], inputs) if name in self else inputs
            for name, inputs in adapter_inputs.items()
        }


def called(name: str, module: nn.Module, *inputs: Any) -> Any:
    """Call a plugin's module; outside of compiled graphs its errors, and another shape than `x`'s, name the plugin."""
    if torch.compiler.is_compiling():
        return module(*inputs)
    call = f"{type(module).__name__} at a port"
    with blame(name, call, type(module).forward):
        found = module(*inputs)
    x = inputs[0]
    if len(inputs) > 1 and getattr(found, "shape", None) != x.shape:
        shape = getattr(found, "shape", None)
        returned = type(found).__name__ if shape is None else list(shape)
        raise PluginError(f"plugin {name!r}, {call}: returned {returned} for x {list(x.shape)}")
    return found


def refuse_unread(dit: nn.Module, adapter_inputs: Mapping[str, Any], others: Collection[str] = ()) -> None:
    """Raise `PluginError` for adapter inputs of a plugin that has no module at any port of a network.

    The plugins in `others` may read theirs elsewhere, in `before_step`.
    """
    readers = {name for module in dit.modules() if isinstance(module, Port) for name in module} | set(others)
    for name in adapter_inputs:
        if name not in readers:
            raise PluginError(
                f"plugin {name!r} sets adapter inputs, but attached no module that reads them",
                "attach one at a port in `attach`, or leave cond.set_adapter_inputs out",
            )


def add_to_video(x: Tensor, change: Tensor, mask: Tensor | None = None) -> Tensor:
    """Add [B, F', ...] to the last F' frames of x [B, F, ...]; context frames stand before the video.

    A mask [B, F', S, 1] multiplies the change; where it is 0, x stays as it is, to the bit.
    """
    if mask is not None:
        video = x[:, x.shape[1] - mask.shape[1] :]
        mask = mask.to(x)
        video = torch.where(mask != 0, video + change.to(x.dtype) * mask, video)
        return torch.cat((x[:, : x.shape[1] - mask.shape[1]], video), dim=1)
    before = x.shape[1] - change.shape[1]
    if before and change.shape[1] > 1:
        change = F.pad(change, [0, 0] * (change.dim() - 2) + [before, 0])
    return x + change.to(x.dtype)


class Additive(nn.Module):
    """Add a linear map of the feed, zero at first.

    The feed is [B, F, features] (one vector a frame, or F = 1 for all frames), or [B, F, S, features] where
    x is [B, F, S, D]. A feed of the video's frames leaves context frames alone.
    """

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(features, width)
        nn.init.zeros_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)

    def forward(self, x: Tensor, feed: Tensor) -> Tensor:
        change = self.proj(feed.to(self.proj.weight))
        if change.dim() < x.dim():
            change = change.unsqueeze(2)
        return add_to_video(x, change)


class CrossAttend(nn.Module):
    """Let the tokens of each frame attend to tokens of the feed; zero at first.

    The feed is [B, F, n, features], n tokens for each frame; F = 1 gives all frames the same tokens. x is
    [B, F, S, D]. A feed of the video's frames leaves context frames alone. With a mask [B, F, S, 1] the change is
    multiplied by it: then it is the mask that has the video's frames, and where it is 0 nothing changes.

    `inner` is the width of the queries (D by default), shared among the heads; `norm_input` normalises the feed's
    tokens as the queries' are.
    """

    def __init__(
        self,
        features: int,
        width: int,
        heads: int,
        inner: int | None = None,
        bias: bool = True,
        norm_input: bool = False,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        inner = inner or width
        self.heads = heads
        self.norm = nn.LayerNorm(width, eps=eps)
        self.norm_input = nn.LayerNorm(features, eps=eps) if norm_input else None
        self.q = nn.Linear(width, inner, bias=bias)
        self.kv = nn.Linear(features, 2 * inner, bias=bias)
        self.proj = nn.Linear(inner, width, bias=bias)
        nn.init.zeros_(self.proj.weight)
        if bias:
            nn.init.zeros_(self.proj.bias)

    def change(self, x: Tensor, feed: Tensor) -> Tensor:
        """What x [B, F, S, D] reads from the feed [B, F or 1, n, features]: [B, F, S, D]."""
        feed = feed.to(self.kv.weight)
        feed = feed if self.norm_input is None else self.norm_input(feed)
        q = self.q(self.norm(x)).unflatten(-1, (self.heads, -1)).transpose(2, 3)  # [B,F,heads,S,d]
        k, v = self.kv(feed).unflatten(-1, (2, self.heads, -1)).unbind(-3)
        k, v = (part.transpose(2, 3).expand(q.shape[0], q.shape[1], -1, -1, -1) for part in (k, v))
        out: Tensor = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(2, 3).flatten(3))
        return out

    def forward(self, x: Tensor, feed: Tensor, mask: Tensor | None = None) -> Tensor:
        frames = (feed if mask is None else mask).shape[1]
        alone = mask is None and frames == 1  # the same tokens for all frames, context too
        return add_to_video(x, self.change(x if alone else x[:, x.shape[1] - frames :], feed), mask)


def port_owner(key: str) -> str | None:
    """The plugin whose module a key of the DiT's state dict belongs to; None for the DiT's own."""
    found = re.search(r"(?:^adapter_inputs|^embed|^time|\.after)\.([^.]+)\.", key)
    return found[1] if found else None
