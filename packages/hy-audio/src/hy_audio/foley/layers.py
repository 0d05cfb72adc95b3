"""The layers that the Foley network has beside the core's.

B rows, N tokens, D width, H heads, d channels of a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hy_core.dit.attention import attend
from hy_core.dit.layers import GELU, Linear, RMSNorm
from hy_core.dit.rope import frequencies
from torch import Tensor, nn


class TokenConv(nn.Conv1d):
    """A convolution along the tokens of [B,N,D] that keeps their number."""

    def __init__(self, width: int, out: int, kernel: int, bias: bool = True) -> None:
        super().__init__(width, out, kernel, padding=kernel // 2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class ConvMLP(nn.Module):
    """A gated MLP of convolutions: w2(silu(w1 x) * w3 x); two thirds of `hidden`, rounded up to 256s."""

    def __init__(self, width: int, hidden: float, kernel: int) -> None:
        super().__init__()
        hidden = -(-int(2 * hidden / 3) // 256) * 256
        self.w1 = TokenConv(width, hidden, kernel, bias=False)
        self.w2 = TokenConv(hidden, width, kernel, bias=False)
        self.w3 = TokenConv(width, hidden, kernel, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class SwiGLU(nn.Module):
    """w2(silu(w1 x) * w3 x), without biases."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(features, width, bias=False)
        self.w2 = nn.Linear(width, width, bias=False)
        self.w3 = nn.Linear(features, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class TokenEmbedding(nn.Module):
    """Audio latents [B,C,N] to tokens [B,N,D]."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv1d(channels, width, kernel_size=1)

    def forward(self, latents: Tensor) -> Tensor:
        return self.proj(latents.to(self.proj.weight.dtype)).transpose(1, 2)


def projection(width: int, out: int, bias: bool) -> nn.Linear:
    """A linear map with or without bias."""
    return Linear(width, out) if bias else nn.Linear(width, out, bias=False)


def head_norm(kind: str, dim: int) -> nn.Module:
    """The norm of queries and keys: "rms", "layer" or "none"."""
    return {
        "rms": lambda: RMSNorm(dim),
        "layer": lambda: nn.LayerNorm(dim, eps=1e-6),
        "none": nn.Identity,
    }[kind]()


def activation(kind: str) -> nn.Module:
    """The activation of the triple blocks' MLPs."""
    return {"gelu_tanh": GELU, "gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU}[kind]()


def self_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Each row's tokens attend to all of them: [B,N,H,d] to [B,N,D]. Queries and keys take the values' dtype."""
    rows, tokens = v.shape[:2]
    q, k, v = (part.to(v.dtype).flatten(0, 1) for part in (q, k, v))
    return attend(q, k, v, [tokens] * rows).unflatten(0, (rows, tokens)).flatten(2)


def cross_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Tokens q [B,N,H,d] attend to others, k and v [B,L,H,d]: [B,N,D]."""
    q, k, v = (part.to(v.dtype).transpose(1, 2) for part in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def rotary_table(at: Tensor, dim: int, scale: float = 1.0, theta: float = 10000.0) -> Tensor:
    """Rotary turns [N, dim / 2] of positions `at` [N], at `scale` times the frequency."""
    angle = torch.outer(at.float(), frequencies(dim, theta, at.device) * scale)
    return torch.complex(angle.cos(), angle.sin())
