"""The two kinds of block: two streams that meet in attention, then one.

B rows, F frames, S tokens of a frame, N = F*S, D width, T text tokens of all rows (packed, no padding).
`video` [B,F,S,D] and `text` [T,D] are the tokens; `frame_act` [B,F,D] and `text_act` [B,D] are SiLU of the
conditioning vectors of the frames and of the rows' text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hy_core.dit.attention import PackedSequence
from hy_core.dit.config import DiTConfig
from hy_core.dit.layers import GELU, MLP, Linear, Modulation, RMSNorm, by_frames, norm
from hy_core.dit.ports import Port
from hy_core.dit.rope import rotate

Norms = tuple[RMSNorm, RMSNorm]


@dataclass
class TokenLayout:
    """Positions and lengths of the tokens for attention; the same in every block and step."""

    rope: Tensor  # [N, head_dim/2] complex rotations of the video's tokens
    joint: PackedSequence  # video, then text


def joint_attention(
    video: Tensor, text: Tensor, video_norms: Norms, text_norms: Norms, heads: int, layout: TokenLayout
) -> tuple[Tensor, Tensor]:
    """Let each row's video and text attend to both: [B,F,S,3*D], [T,3*D] to [B,F,S,D], [T,D].

    Queries and keys are normalised; those of the video are rotated by their positions.
    """
    video_q, video_k, video_v = (
        video.flatten(1, 2).unflatten(-1, (3, heads, -1)).unbind(-3)
    )  # [B,N,heads,head_dim]
    text_q, text_k, text_v = text.unflatten(-1, (3, heads, -1)).unbind(-3)  # [T,heads,head_dim]
    video_q, video_k = (
        rotate(norm(part), layout.rope) for norm, part in zip(video_norms, (video_q, video_k), strict=True)
    )
    text_q, text_k = (norm(part) for norm, part in zip(text_norms, (text_q, text_k), strict=True))
    pairs = ((video_q, text_q), (video_k, text_k), (video_v, text_v))
    q, k, v = (layout.joint.pack(a.to(video.dtype).flatten(0, 1), b.to(video.dtype)) for a, b in pairs)
    video_out, text_out = layout.joint.unpack(layout.joint.attend(q, k, v))
    return video_out.flatten(1).view(*video.shape[:3], -1), text_out.flatten(1)


def add_mlp(mlp: MLP, x: Tensor, shift: Tensor, scale: Tensor, gate: Tensor) -> Tensor:
    """x + gate * mlp(modulated norm of x); shift, scale and gate broadcast over tokens.

    x is [..., D]; shift, scale and gate broadcast to it.
    """
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
        video: Tensor,
        text: Tensor,
        frame_act: Tensor,
        text_act: Tensor,
        layout: TokenLayout,
        adapter_inputs: Mapping[str, Any],
    ) -> tuple[Tensor, Tensor]:
        """Return the tokens after this block, [B,F,S,D] and [T,D]; names and shapes as at the module's top."""
        video_attn, video_mlp = self.img_mod(frame_act.unsqueeze(2))  # shift, scale, gate, each [B,F,1,D]
        text_attn, text_mlp = self.txt_mod(layout.joint.spread(text_act))  # each [T,D]

        video_out, text_out = joint_attention(
            self.img_attn_qkv(norm(video, video_attn.shift, video_attn.scale)),
            self.txt_attn_qkv(norm(text, text_attn.shift, text_attn.scale)),
            (self.img_attn_q_norm, self.img_attn_k_norm),
            (self.txt_attn_q_norm, self.txt_attn_k_norm),
            self.heads,
            layout,
        )
        video = torch.addcmul(video, video_attn.gate, self.img_attn_proj(video_out))
        text = torch.addcmul(text, text_attn.gate, self.txt_attn_proj(text_out))
        video = by_frames(partial(add_mlp, self.img_mlp), video, *video_mlp)
        text = add_mlp(self.txt_mlp, text, *text_mlp)
        return self.after(video, adapter_inputs), text


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
        video: Tensor,
        text: Tensor,
        frame_act: Tensor,
        text_act: Tensor,
        layout: TokenLayout,
        adapter_inputs: Mapping[str, Any],
    ) -> tuple[Tensor, Tensor]:
        """Return the tokens after this block, [B,F,S,D] and [T,D]; names and shapes as at the module's top."""
        (video_mod,) = self.modulation(frame_act.unsqueeze(2))  # shift, scale, gate, each [B,F,1,D]
        (text_mod,) = self.modulation(layout.joint.spread(text_act))  # each [T,D]

        video_qkv, video_mlp = self.linear1(norm(video, video_mod.shift, video_mod.scale)).split(
            self.parts, dim=-1
        )
        text_qkv, text_mlp = self.linear1(norm(text, text_mod.shift, text_mod.scale)).split(
            self.parts, dim=-1
        )
        norms = (self.q_norm, self.k_norm)
        video_out, text_out = joint_attention(video_qkv, text_qkv, norms, norms, self.heads, layout)

        video = by_frames(self.add, video, video_mod.gate, video_out, video_mlp)
        text = self.add(text, text_mod.gate, text_out, text_mlp)
        return self.after(video, adapter_inputs), text

    def add(self, x: Tensor, gate: Tensor, attended: Tensor, mlp: Tensor) -> Tensor:
        """x + gate * linear2(attention's output, activated MLP); x and `attended` [..., D], `mlp` [..., hidden]."""
        return torch.addcmul(x, gate, self.linear2(torch.cat((attended, self.mlp_act(mlp)), dim=-1)))
