"""The small layers that the blocks are made of.

B rows, F frames, S tokens of a frame, D width, T text tokens of all rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Every norm of the DiT.
EPS = 1e-6
#: Whether this processor multiplies bfloat16 itself. Where it doesn't, that takes eight times as long as fp32.
CPU_HAS_BF16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
#: Tokens of one piece in `by_frames`: what lies between two linear maps then stays in memory that is at hand.
PIECE = 768


def embedded_guidance(scale: float | Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """The number that a guidance-distilled model is given for a guidance scale, fp32.

    The official code casts the scale and multiplies by 1000 in the model's dtype, and the released weights
    were run that way: in bfloat16, 6.0 becomes 6016 and not 6000.

    A scalar or a tensor of any shape; the result has the same shape.
    """
    return (torch.as_tensor(scale, dtype=torch.float32).to(dtype) * 1000.0).float()


def sinusoid(value: Tensor, dim: int = 256, period: float = 10000.0) -> Tensor:
    """Cosines, then sines, of `dim / 2` frequencies from 1 down to 1 / period; fp32, [..., dim]."""
    angles = value.float()[..., None] * speeds(dim // 2, period, value.device)
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


def speeds(count: int, period: float, device: torch.device) -> Tensor:
    """Frequencies from 1 down to nearly 1 / period, [count], in fp32 as the official code has them.

    Processors differ in the last digit of an fp32 exponential, and a guidance of 6000 makes 4e-4 of that.
    """
    return torch.exp(torch.arange(count, dtype=torch.float32, device=device) * (-math.log(period) / count))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x W^T + b; bfloat16 is multiplied in fp32 on a processor that has no instructions for it.

    x is [..., in], the weight [out, in], the bias [out]; returns [..., out].
    """
    if x.dtype == torch.bfloat16 and x.device.type == "cpu" and not CPU_HAS_BF16:
        return F.linear(x.float(), weight.float(), None if bias is None else bias.float()).to(x.dtype)
    return F.linear(x, weight, bias)


class Linear(nn.Linear):
    """A linear map with bias. A module at `adapter` changes what it returns (see `hy_core.adapters`)."""

    adapter: nn.Module | None

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__(inputs, outputs, bias)
        self.register_module("adapter", None)

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., in] to [..., out]."""
        y = linear(x, self.weight, self.bias)
        if self.adapter is None:
            return y
        adapted: Tensor = self.adapter(x, y, self.weight, self.bias)
        return adapted


def by_frames(function: Callable[..., Tensor], x: Tensor, *others: Tensor) -> Tensor:
    """Apply a function of single tokens to x [B,F,S,D] and others [B,F,...], on a CPU a few frames at a time.

    Large tensors in between would come from the system page by page, which costs a tenth of a step there. In
    training they are kept anyway.
    """
    step = max(1, PIECE // x.shape[2])
    if (
        x.device.type != "cpu"
        or x.shape[1] <= step
        or torch.is_grad_enabled()
        or torch.compiler.is_compiling()
    ):
        return function(x, *others)
    pieces = zip(*(part.split(step, dim=1) for part in (x, *others)), strict=True)
    return torch.cat([function(*piece) for piece in pieces], dim=1)


class NumberEmbedding(nn.Module):
    """Embed a number (a time, a guidance scale; both times 1000): [...] to [..., D]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(Linear(256, width), nn.SiLU(), Linear(width, width))

    def forward(self, value: Tensor) -> Tensor:
        result: Tensor = self.mlp(sinusoid(value).to(next(self.mlp.parameters()).dtype))
        return result


class VectorEmbedding(nn.Module):
    """Embed the pooled text vector."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.in_layer = Linear(features, width)
        self.out_layer = Linear(width, width)

    def forward(self, vector: Tensor) -> Tensor:
        """Embed pooled vectors [B, features] to [B, D]."""
        result: Tensor = self.out_layer(F.silu(self.in_layer(vector.to(self.in_layer.weight.dtype))))
        return result


class ContextEmbedding(nn.Module):
    """Embed the mean of the text encoder's states, for the token refiner."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.linear_1 = Linear(features, width)
        self.linear_2 = Linear(width, width)

    def forward(self, vector: Tensor) -> Tensor:
        """Embed mean states [B, features] to [B, D]."""
        result: Tensor = self.linear_2(F.silu(self.linear_1(vector.to(self.linear_1.weight.dtype))))
        return result


class PatchEmbedding(nn.Module):
    """Cut latents [B,C,F,H,W] into patches and embed them: [B,F,S,D], a frame's patches in row-major order.

    A convolution whose stride is its kernel is one matrix product per patch; it is computed as that.
    """

    def __init__(self, channels: int, width: int, patch: tuple[int, int, int]) -> None:
        super().__init__()
        self.proj = nn.Conv3d(channels, width, kernel_size=patch, stride=patch)

    def forward(self, latents: Tensor) -> Tensor:
        t, h, w = self.proj.kernel_size
        cut = latents.unflatten(4, (-1, w)).unflatten(3, (-1, h)).unflatten(2, (-1, t))  # [B,C,F,t,H,h,W,w]
        patches = cut.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(2, 3)  # [B,F,S,C*t*h*w]
        weight = self.proj.weight
        return linear(patches.to(weight.dtype), weight.flatten(1), self.proj.bias)


class RMSNorm(nn.Module):
    """Scale each head's channels to unit root mean square, in fp32, then by a weight."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [..., dim] in float32. Returns the same shape."""
        return F.rms_norm(x.float(), self.weight.shape, self.weight.float(), EPS)


class GELU(nn.Module):
    """The tanh form of GELU: x/2 * (1 + tanh(u)) with u = sqrt(2/pi) * (x + 0.044715 x^3), or x * sigmoid(2u).

    Both are the same function. A CPU takes half the time for the second, in place where nobody needs the steps.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation to a tensor of any shape. Returns the same shape."""
        if x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_grad_enabled():
            return F.gelu(x, approximate="tanh")
        twice = 2 * math.sqrt(2 / math.pi)
        return x.square().mul_(0.044715 * twice).add_(twice).mul_(x).sigmoid_().mul_(x)


class MLP(nn.Module):
    """Two linear maps with an activation between them."""

    def __init__(self, width: int, hidden: int, activation: nn.Module) -> None:
        super().__init__()
        self.fc1 = Linear(width, hidden)
        self.act = activation
        self.fc2 = Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens [..., D] to [..., D]."""
        result: Tensor = self.fc2(self.act(self.fc1(x)))
        return result


class Mod(NamedTuple):
    """One modulation: x * (1 + scale) + shift before a layer, and a gate on what comes out of it."""

    shift: Tensor
    scale: Tensor
    gate: Tensor


class Modulation(nn.Module):
    """Shifts, scales and gates from SiLU(vector) [..., D]: `parts` / 3 modulations, each of [..., D].

    The caller passes SiLU(vector), which all blocks share.
    """

    def __init__(self, width: int, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.linear = Linear(width, parts * width)

    def forward(self, act: Tensor) -> list[Mod]:
        parts = self.linear(act).chunk(self.parts, dim=-1)
        return [Mod(*parts[first : first + 3]) for first in range(0, self.parts, 3)]


def norm(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """LayerNorm without weights, then x * (1 + scale) + shift, which broadcast over tokens.

    x is [..., D]; shift and scale broadcast to it.
    """
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=EPS), 1 + scale)


class FinalLayer(nn.Module):
    """From tokens [B,F,S,D] to the velocity's patches; the modulation is (shift, scale), shift first."""

    def __init__(self, width: int, patch: tuple[int, int, int], channels: int) -> None:
        super().__init__()
        self.patch = patch
        self.linear = Linear(width, math.prod(patch) * channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), Linear(width, 2 * width))

    def forward(self, x: Tensor, vec: Tensor, size: tuple[int, int]) -> Tensor:
        """Return [B,C,F,H,W] for x [B,F,S,D], vec [B,F,D] and the grid's rows and columns."""
        shift, scale = self.adaLN_modulation(vec).unsqueeze(2).chunk(2, dim=-1)  # [B,F,1,D]
        t, h, w = self.patch
        out = self.linear(norm(x, shift, scale))  # [B,F,S,C*t*h*w]
        out = out.unflatten(-1, (-1, t, h, w)).unflatten(2, size)  # [B,F,rows,columns,C,t,h,w]
        result: Tensor = out.permute(0, 4, 1, 5, 2, 6, 3, 7).flatten(6).flatten(4, 5).flatten(2, 3)
        return result
