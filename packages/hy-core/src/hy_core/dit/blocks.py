"""The two kinds of block: two streams that meet in attention, then one.

B rows, F frames, S tokens of a frame, N = F*S, D width, T text tokens of all rows (packed, no padding).
x [B,F,S,D] is the video, y [T,D] the text; `frames` [B,F,D] and `noisy` [B,D] are SiLU of the conditioning vectors
of the frames and of the text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hy_core.dit.attention import Layout, attend
from hy_core.dit.config import DiTConfig
from hy_core.dit.layers import MLP, Modulation, RMSNorm, norm
from hy_core.dit.ports import Port
from hy_core.dit.rope import Rope, rotate


@dataclass
class Sequence:
    """What attention has to know of positions and lengths; the same in every block and step."""

    rope: Rope  # for the N video tokens
    joint: Layout  # video, then text


def heads(qkv: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Split [..., 3*D] into queries, keys and values [..., heads, head_dim]."""
    return qkv.unflatten(-1, (3, count, -1)).unbind(-3)


def turn(x: Tensor, norm: RMSNorm, rope: Rope, dtype: torch.dtype) -> Tensor:
    """Norm and rotate the video's queries or keys [B,F,S,heads,head_dim]; packed [B*N,heads,head_dim]."""
    return rotate(norm(x).flatten(1, 2), rope).to(dtype).flatten(0, 1)


class DoubleBlock(nn.Module):
    """Video and text with weights of their own, joined in attention."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        width, hidden = config.width, config.mlp_width
        self.heads = config.heads
        self.img_mod = Modulation(width, 6)
        self.img_attn_qkv = nn.Linear(width, 3 * width)
        self.img_attn_q_norm = RMSNorm(config.head_dim)
        self.img_attn_k_norm = RMSNorm(config.head_dim)
        self.img_attn_proj = nn.Linear(width, width)
        self.img_mlp = MLP(width, hidden, nn.GELU(approximate="tanh"))
        self.txt_mod = Modulation(width, 6)
        self.txt_attn_qkv = nn.Linear(width, 3 * width)
        self.txt_attn_q_norm = RMSNorm(config.head_dim)
        self.txt_attn_k_norm = RMSNorm(config.head_dim)
        self.txt_attn_proj = nn.Linear(width, width)
        self.txt_mlp = MLP(width, hidden, nn.GELU(approximate="tanh"))
        self.after = Port()

    def forward(
        self, x: Tensor, y: Tensor, frames: Tensor, noisy: Tensor, seq: Sequence, feeds: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor]:
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = self.img_mod(frames.unsqueeze(2))  # [B,F,1,D]
        q, k, v = heads(self.img_attn_qkv(norm(x, shift, scale)), self.heads)
        q, k = (turn(*part, seq.rope, v.dtype) for part in ((q, self.img_attn_q_norm), (k, self.img_attn_k_norm)))

        text = [seq.joint.spread(part) for part in self.txt_mod(noisy)]  # [T,D]
        text_q, text_k, text_v = heads(self.txt_attn_qkv(norm(y, text[0], text[1])), self.heads)
        text_q, text_k = self.txt_attn_q_norm(text_q), self.txt_attn_k_norm(text_k)

        pairs = ((q, text_q.to(v.dtype)), (k, text_k.to(v.dtype)), (v.flatten(0, 2), text_v))
        out = attend(*(seq.joint.pack(*pair) for pair in pairs), seq.joint.lengths)
        seen, read = (part.flatten(1) for part in seq.joint.unpack(out))  # [B*N,D], [T,D]

        x = torch.addcmul(x, gate, self.img_attn_proj(seen).view_as(x))
        x = torch.addcmul(x, gate_mlp, self.img_mlp(norm(x, shift_mlp, scale_mlp)))
        y = torch.addcmul(y, text[2], self.txt_attn_proj(read))
        y = torch.addcmul(y, text[5], self.txt_mlp(norm(y, text[3], text[4])))
        return self.after(x, feeds), y


class SingleBlock(nn.Module):
    """Video and text with shared weights; attention and MLP side by side, from one linear map into one."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        width, hidden = config.width, config.mlp_width
        self.heads = config.heads
        self.split = [3 * width, hidden]
        self.modulation = Modulation(width, 3)
        self.linear1 = nn.Linear(width, 3 * width + hidden)
        self.q_norm = RMSNorm(config.head_dim)
        self.k_norm = RMSNorm(config.head_dim)
        self.mlp_act = nn.GELU(approximate="tanh")
        self.linear2 = nn.Linear(width + hidden, width)
        self.after = Port()

    def forward(
        self, x: Tensor, y: Tensor, frames: Tensor, noisy: Tensor, seq: Sequence, feeds: Mapping[str, Any]
    ) -> tuple[Tensor, Tensor]:
        shift, scale, gate = self.modulation(frames.unsqueeze(2))  # [B,F,1,D]
        qkv, mlp = self.linear1(norm(x, shift, scale)).split(self.split, dim=-1)
        q, k, v = heads(qkv, self.heads)
        q, k = (turn(*part, seq.rope, v.dtype) for part in ((q, self.q_norm), (k, self.k_norm)))

        text_shift, text_scale, text_gate = (seq.joint.spread(part) for part in self.modulation(noisy))  # [T,D]
        text_qkv, text_mlp = self.linear1(norm(y, text_shift, text_scale)).split(self.split, dim=-1)
        text_q, text_k, text_v = heads(text_qkv, self.heads)
        text_q, text_k = self.q_norm(text_q), self.k_norm(text_k)

        pairs = ((q, text_q.to(v.dtype)), (k, text_k.to(v.dtype)), (v.flatten(0, 2), text_v))
        out = attend(*(seq.joint.pack(*pair) for pair in pairs), seq.joint.lengths)
        seen, read = (part.flatten(1) for part in seq.joint.unpack(out))  # [B*N,D], [T,D]

        x = torch.addcmul(x, gate, self.linear2(torch.cat((seen.view_as(x), self.mlp_act(mlp)), dim=-1)))
        y = torch.addcmul(y, text_gate, self.linear2(torch.cat((read, self.mlp_act(text_mlp)), dim=-1)))
        return self.after(x, feeds), y
