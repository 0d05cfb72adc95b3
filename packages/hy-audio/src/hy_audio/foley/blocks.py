"""The two kinds of block: sound and picture that meet in attention and read the text, then sound alone.

B rows, N audio tokens, V visual tokens, L text tokens, D width, H heads, d channels of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from hy_core.dit.layers import MLP, Mod, Modulation, norm
from hy_core.dit.rope import rotate
from torch import Tensor, nn

from hy_audio.foley.config import FoleyConfig
from hy_audio.foley.layers import (
    ConvMLP,
    TokenConv,
    activation,
    cross_attention,
    head_norm,
    projection,
    self_attention,
)


@dataclass
class RotaryPositions:
    """Rotary turns of each stream, [tokens, d/2]; the same in every block and step."""

    joint_audio: Tensor  # of the audio in attention with the picture
    joint_visual: Tensor
    audio: Tensor  # counted from 0, alone and towards the text
    visual: Tensor
    text: Tensor
    #: The visual token whose query and key each visual token really uses; None: its own.
    source: Tensor | None


class Stream(nn.Module):
    """One stream's weights in a triple block: joint attention, cross-attention to the text, MLP."""

    def __init__(self, config: FoleyConfig) -> None:
        super().__init__()
        width, bias = config.width, config.qkv_bias
        self.heads = config.heads
        self.mod = Modulation(width, 9)
        self.qkv = projection(width, 3 * width, bias)
        self.q_norm = head_norm(config.head_norm, config.head_dim)
        self.k_norm = head_norm(config.head_norm, config.head_dim)
        self.proj = projection(width, width, bias)
        self.cross_q = projection(width, width, bias)
        self.cross_q_norm = head_norm(config.head_norm, config.head_dim)
        self.cross_proj = projection(width, width, bias)
        self.mlp = MLP(width, int(width * config.mlp_ratio), activation(config.activation))

    def joint(self, x: Tensor, mod: Mod) -> tuple[Tensor, Tensor, Tensor]:
        """Normed queries and keys, and values, each [B,N,H,d]."""
        parts = self.qkv(norm(x, mod.shift, mod.scale)).unflatten(-1, (3, self.heads, -1))
        q, k, v = parts.unbind(-3)
        return self.q_norm(q), self.k_norm(k), v

    def query(self, x: Tensor, mod: Mod, positions: Tensor) -> Tensor:
        """Normed and turned queries to the text [B,N,H,d]."""
        q = self.cross_q(norm(x, mod.shift, mod.scale)).unflatten(-1, (self.heads, -1))
        return rotate(self.cross_q_norm(q), positions)


class TripleBlock(nn.Module):
    """Audio and picture with weights of their own, joined in attention; both then read the text, unchanged."""

    def __init__(self, config: FoleyConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.audio = Stream(config)
        self.visual = Stream(config)
        self.text_kv = projection(config.width, 2 * config.width, config.qkv_bias)
        self.text_k_norm = head_norm(config.head_norm, config.head_dim)

    def forward(
        self, audio: Tensor, visual: Tensor, text: Tensor, act: Tensor, at: RotaryPositions
    ) -> tuple[Tensor, Tensor]:
        """Audio [B,N,D] and visual [B,V,D] tokens after the block; text [B,L,D], act = SiLU(time) [B,D]."""
        act = act[:, None]
        a_joint, a_cross, a_mlp = self.audio.mod(act)
        v_joint, v_cross, v_mlp = self.visual.mod(act)
        seen = visual.shape[1]

        a_q, a_k, a_v = self.audio.joint(audio, a_joint)
        v_q, v_k, v_v = self.visual.joint(visual, v_joint)
        if at.source is not None:
            v_q, v_k = v_q[:, at.source], v_k[:, at.source]
        q = torch.cat((rotate(v_q, at.joint_visual), rotate(a_q, at.joint_audio)), dim=1)
        k = torch.cat((rotate(v_k, at.joint_visual), rotate(a_k, at.joint_audio)), dim=1)
        out = self_attention(q, k, torch.cat((v_v, a_v), dim=1))
        audio = torch.addcmul(audio, a_joint.gate, self.audio.proj(out[:, seen:]))
        visual = torch.addcmul(visual, v_joint.gate, self.visual.proj(out[:, :seen]))

        k, v = self.text_kv(text).unflatten(-1, (2, self.heads, -1)).unbind(-3)
        q = torch.cat(
            (self.visual.query(visual, v_cross, at.visual), self.audio.query(audio, a_cross, at.audio)), dim=1
        )
        out = cross_attention(q, rotate(self.text_k_norm(k), at.text), v)
        audio = torch.addcmul(audio, a_cross.gate, self.audio.cross_proj(out[:, seen:]))
        visual = torch.addcmul(visual, v_cross.gate, self.visual.cross_proj(out[:, :seen]))

        audio = torch.addcmul(audio, a_mlp.gate, self.audio.mlp(norm(audio, a_mlp.shift, a_mlp.scale)))
        visual = torch.addcmul(visual, v_mlp.gate, self.visual.mlp(norm(visual, v_mlp.shift, v_mlp.scale)))
        return audio, visual


class SingleBlock(nn.Module):
    """Audio alone, each token modulated by the time and by what it should be in time with."""

    def __init__(self, config: FoleyConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.modulation = Modulation(width, 6)
        self.linear_qkv = projection(width, 3 * width, True)
        self.linear1 = TokenConv(width, width, 3)
        self.linear2 = ConvMLP(width, width * config.mlp_ratio, 3)
        self.q_norm = nn.RMSNorm(config.head_dim)  # without eps: the machine's epsilon, as released
        self.k_norm = nn.RMSNorm(config.head_dim)

    def forward(self, x: Tensor, act: Tensor, turns: Tensor) -> Tensor:
        """Tokens x [B,N,D] after the block; act [B,N,D] is SiLU of the tokens' conditions."""
        attention, mlp = self.modulation(act)
        qkv = self.linear_qkv(modulated(x, attention)).unflatten(-1, (self.heads, -1, 3))
        q, k, v = qkv.unbind(-1)  # innermost, unlike everywhere else
        out = self_attention(rotate(self.q_norm(q), turns), rotate(self.k_norm(k), turns), v)
        x = torch.addcmul(x, attention.gate, self.linear1(out))
        return torch.addcmul(x, mlp.gate, self.linear2(modulated(x, mlp)))


def modulated(x: Tensor, mod: Mod) -> Tensor:
    """Like the core's `norm`, with the larger epsilon of the single blocks."""
    return torch.addcmul(mod.shift, F.layer_norm(x, x.shape[-1:], eps=1e-5), 1 + mod.scale)
