"""The two kinds of block: two streams that meet in attention, then one.

B rows, F frames, S tokens of a frame, N = F*S, D width, T text tokens of all rows (packed, no padding).
x [B,F,S,D] is the video, y [T,D] the text; `frames` [B,F,D] and `noisy` [B,D] are SiLU of the conditioning
vectors of the frames and of the text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hy_core.dit.attention import PackedSequence, attend
from hy_core.dit.config import DiTConfig
from hy_core.dit.layers import GELU, MLP, Linear, Modulation, RMSNorm, by_frames, norm
from hy_core.dit.ports import Port
from hy_core.dit.rope import rotate

Norms = tuple[RMSNorm, RMSNorm]


@dataclass
class Sequence:
    """What attention has to know of positions and lengths; the same in every block and step."""

    rope: Tensor  # [N, head_dim/2] turns of the video's tokens
    joint: PackedSequence  # video, then text


def joint_attention(
    x: Tensor, y: Tensor, x_norms: Norms, y_norms: Norms, heads: int, seq: Sequence
) -> tuple[Tensor, Tensor]:
    """Let each row's video and text attend to both: x [B,F,S,3*D], y [T,3*D] to [B,F,S,D], [T,D].

    Queries and keys are normed; those of the video are turned by their positions.
    """
    x_q, x_k, x_v = x.flatten(1, 2).unflatten(-1, (3, heads, -1)).unbind(-3)  # [B,N,heads,head_dim]
    y_q, y_k, y_v = y.unflatten(-1, (3, heads, -1)).unbind(-3)  # [T,heads,head_dim]
    x_q, x_k = (rotate(norm(part), seq.rope) for norm, part in zip(x_norms, (x_q, x_k), strict=True))
    y_q, y_k = (norm(part) for norm, part in zip(y_norms, (y_q, y_k), strict=True))
    pairs = ((x_q, y_q), (x_k, y_k), (x_v, y_v))
    q, k, v = (seq.joint.pack(a.to(x.dtype).flatten(0, 1), b.to(x.dtype)) for a, b in pairs)
    seen, read = seq.joint.unpack(attend(q, k, v, seq.joint.lengths))
    return seen.flatten(1).view(*x.shape[:3], -1), read.flatten(1)


def add_mlp(mlp: MLP, x: Tensor, shift: Tensor, scale: Tensor, gate: Tensor) -> Tensor:
    """x plus what the MLP makes of it."""
    return torch.addcmul(x, gate, mlp(norm(x, shift, scale)))


class DoubleBlock(nn.Module):
    """Video and text with weights of their own, joined in attention."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        width, hidden = config.width, config.mlp_width
        self.heads = config.heads
        self.img_mod = Modulation(width, 6)
        self.img_attn_qkv = Linear(width, 3 * width)
        self.img_attn_q_norm = RMSNorm(config.head_dim)
        self.img_attn_k_norm = RMSNorm(config.head_dim)
        self.img_attn_proj = Linear(width, width)
        self.img_mlp = MLP(width, hidden, GELU())
        self.txt_mod = Modulation(width, 6)
        self.txt_attn_qkv = Linear(width, 3 * width)
        self.txt_attn_q_norm = RMSNorm(config.head_dim)
        self.txt_attn_k_norm = RMSNorm(config.head_dim)
        self.txt_attn_proj = Linear(width, width)
        self.txt_mlp = MLP(width, hidden, GELU())
        self.after = Port()

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        frames: Tensor,
        noisy: Tensor,
        seq: Sequence,
        adapter_inputs: Mapping[str, Any],
    ) -> tuple[Tensor, Tensor]:
        x_attn, x_mlp = self.img_mod(frames.unsqueeze(2))  # shift, scale, gate, each [B,F,1,D]
        y_attn, y_mlp = self.txt_mod(seq.joint.spread(noisy))  # each [T,D]

        seen, read = joint_attention(
            self.img_attn_qkv(norm(x, x_attn.shift, x_attn.scale)),
            self.txt_attn_qkv(norm(y, y_attn.shift, y_attn.scale)),
            (self.img_attn_q_norm, self.img_attn_k_norm),
            (self.txt_attn_q_norm, self.txt_attn_k_norm),
            self.heads,
            seq,
        )
        x = torch.addcmul(x, x_attn.gate, self.img_attn_proj(seen))
        y = torch.addcmul(y, y_attn.gate, self.txt_attn_proj(read))
        x = by_frames(partial(add_mlp, self.img_mlp), x, *x_mlp)
        y = add_mlp(self.txt_mlp, y, *y_mlp)
        return self.after(x, adapter_inputs), y


class SingleBlock(nn.Module):
    """Video and text with shared weights; attention and MLP side by side, from one linear map into one."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        width, hidden = config.width, config.mlp_width
        self.heads = config.heads
        self.parts = [3 * width, hidden]
        self.modulation = Modulation(width, 3)
        self.linear1 = Linear(width, 3 * width + hidden)
        self.q_norm = RMSNorm(config.head_dim)
        self.k_norm = RMSNorm(config.head_dim)
        self.mlp_act = GELU()
        self.linear2 = Linear(width + hidden, width)
        self.after = Port()

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        frames: Tensor,
        noisy: Tensor,
        seq: Sequence,
        adapter_inputs: Mapping[str, Any],
    ) -> tuple[Tensor, Tensor]:
        (x_mod,) = self.modulation(frames.unsqueeze(2))  # shift, scale, gate, each [B,F,1,D]
        (y_mod,) = self.modulation(seq.joint.spread(noisy))  # each [T,D]

        x_qkv, x_mlp = self.linear1(norm(x, x_mod.shift, x_mod.scale)).split(self.parts, dim=-1)
        y_qkv, y_mlp = self.linear1(norm(y, y_mod.shift, y_mod.scale)).split(self.parts, dim=-1)
        norms = (self.q_norm, self.k_norm)
        seen, read = joint_attention(x_qkv, y_qkv, norms, norms, self.heads, seq)

        x = by_frames(self.add, x, x_mod.gate, seen, x_mlp)
        y = self.add(y, y_mod.gate, read, y_mlp)
        return self.after(x, adapter_inputs), y

    def add(self, x: Tensor, gate: Tensor, seen: Tensor, mlp: Tensor) -> Tensor:
        """x plus what attention and MLP make together."""
        return torch.addcmul(x, gate, self.linear2(torch.cat((seen, self.mlp_act(mlp)), dim=-1)))
