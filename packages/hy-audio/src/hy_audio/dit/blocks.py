"""The two kinds of block: three streams that meet in attention, then one.

B rows, N audio tokens of a row, V visual and T text tokens of all rows (packed, no padding), D width. Audio is
[B*N, D]; every stream's conditioning vectors have one row for each of its tokens, or one for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence as Rows
from dataclasses import dataclass
from typing import NamedTuple

import torch
from hy_core.dit.attention import PackedSequence, attend
from hy_core.dit.layers import GELU, MLP, Linear, Mod, Modulation, RMSNorm, norm
from hy_core.dit.rope import rotate
from torch import Tensor, nn

from hy_audio.dit.config import AudioDiTConfig


class Streams(NamedTuple):
    """One tensor for each stream, tokens first."""

    audio: Tensor
    visual: Tensor
    text: Tensor


@dataclass
class JointSequence:
    """What attention has to know of positions and lengths; the same in every block and step."""

    joint: PackedSequence  # audio, picture, text
    audio: Tensor  # [B*N, head_dim/2] rotary turns
    visual: Tensor  # [V, head_dim/2]


Norms = Rows[tuple[RMSNorm, RMSNorm]]
"""Norms of queries and keys of each stream."""


def joint_attention(qkv: Streams, norms: Norms, heads: int, seq: JointSequence) -> Streams:
    """Let each row's three streams attend to all of them: [tokens, 3*D] to [tokens, D] each.

    Queries and keys are normed; those of audio and picture are turned by their times, those of the text aren't.
    """
    parts = []
    turns = (seq.audio, seq.visual, None)
    for x, (q_norm, k_norm), turn in zip(qkv, norms, turns, strict=True):
        q, k, v = x.unflatten(-1, (3, heads, -1)).unbind(-3)
        q, k = q_norm(q), k_norm(k)
        if turn is not None:
            q, k = rotate(q, turn), rotate(k, turn)
        parts.append((q.to(v.dtype), k.to(v.dtype), v))
    q, k, v = (seq.joint.pack(*part) for part in zip(*parts, strict=True))
    return Streams(*(x.flatten(1) for x in seq.joint.unpack(attend(q, k, v, seq.joint.lengths))))


class Stream(nn.Module):
    """One stream's weights in a triple block."""

    def __init__(self, config: AudioDiTConfig) -> None:
        super().__init__()
        width = config.width
        self.mod = Modulation(width, 6)
        self.qkv = Linear(width, 3 * width)
        self.q_norm = RMSNorm(config.head_dim)
        self.k_norm = RMSNorm(config.head_dim)
        self.proj = Linear(width, width)
        self.mlp = MLP(width, int(width * config.mlp_ratio), GELU())

    def add(self, x: Tensor, seen: Tensor, attention: Mod, mlp: Mod) -> Tensor:
        """x plus what attention saw, plus what the MLP makes of that."""
        x = torch.addcmul(x, attention.gate, self.proj(seen))
        return torch.addcmul(x, mlp.gate, self.mlp(norm(x, mlp.shift, mlp.scale)))


class TripleBlock(nn.Module):
    """Audio, picture and text with weights and modulation of their own, joined in attention."""

    def __init__(self, config: AudioDiTConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.audio, self.visual, self.text = (Stream(config) for _ in range(3))

    def forward(self, xs: Streams, acts: Streams, seq: JointSequence) -> Streams:
        """All streams after the block; `acts` are SiLU of their conditioning vectors."""
        streams = (self.audio, self.visual, self.text)
        mods = [stream.mod(act) for stream, act in zip(streams, acts, strict=True)]
        qkv = Streams(
            *(
                stream.qkv(norm(x, attention.shift, attention.scale))
                for stream, x, (attention, _) in zip(streams, xs, mods, strict=True)
            )
        )
        norms = [(stream.q_norm, stream.k_norm) for stream in streams]
        seen = joint_attention(qkv, norms, self.heads, seq)
        return Streams(
            *(stream.add(x, part, *mod) for stream, x, part, mod in zip(streams, xs, seen, mods, strict=True))
        )


class SingleBlock(nn.Module):
    """All streams with shared weights; attention and MLP side by side, from one linear map into one."""

    def __init__(self, config: AudioDiTConfig) -> None:
        super().__init__()
        width, hidden = config.width, int(config.width * config.mlp_ratio)
        self.heads = config.heads
        self.parts = [3 * width, hidden]
        self.modulation = Modulation(width, 3)
        self.linear1 = Linear(width, 3 * width + hidden)
        self.q_norm = RMSNorm(config.head_dim)
        self.k_norm = RMSNorm(config.head_dim)
        self.act = GELU()
        self.linear2 = Linear(width + hidden, width)

    def forward(self, xs: Streams, acts: Streams, seq: JointSequence) -> Streams:
        mods = [self.modulation(act)[0] for act in acts]
        made = [
            self.linear1(norm(x, mod.shift, mod.scale)).split(self.parts, dim=-1)
            for x, mod in zip(xs, mods, strict=True)
        ]
        norms = [(self.q_norm, self.k_norm)] * 3
        seen = joint_attention(Streams(*(qkv for qkv, _ in made)), norms, self.heads, seq)
        return Streams(
            *(
                torch.addcmul(x, mod.gate, self.linear2(torch.cat((part, self.act(hidden)), dim=-1)))
                for x, mod, part, (_, hidden) in zip(xs, mods, seen, made, strict=True)
            )
        )
