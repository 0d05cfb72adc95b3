"""The token refiner: a small transformer from the language model's states to the DiT's text tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hy_core.dit.attention import PackedSequence
from hy_core.dit.layers import EPS, MLP, ContextEmbedding, Linear, NumberEmbedding


class RefinerBlock(nn.Module):
    """Self-attention and an MLP over the text, each behind a gate made from time and the text's mean.

    Unlike the DiT's own blocks: norms with weights, no shift or scale, no query/key norm, no positions, SiLU.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.self_attn_qkv = Linear(width, 3 * width)
        self.self_attn_proj = Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        self.mlp = MLP(width, 4 * width, nn.SiLU())  # whatever the ratio of the DiT's own blocks
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), Linear(width, 2 * width))

    def forward(self, text: Tensor, context: Tensor, sequence: PackedSequence) -> Tensor:
        """Return text tokens [T,D] for text tokens [T,D] and the rows' context vectors [B,D]."""
        gate_attn, gate_mlp = sequence.spread(self.adaLN_modulation(context)).chunk(2, dim=-1)
        q, k, v = self.self_attn_qkv(self.norm1(text)).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        out = sequence.attend(sequence.pack(q), sequence.pack(k), sequence.pack(v))
        text = text + gate_attn * self.self_attn_proj(sequence.unpack(out)[0].flatten(1))
        result: Tensor = text + gate_mlp * self.mlp(self.norm2(text))
        return result


class BlockList(nn.Module):
    """Holds the blocks under the name that the checkpoints have."""

    def __init__(self, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)


class Refiner(nn.Module):
    """Text states to text tokens. `prepare` depends on the prompt alone; `forward` runs every step."""

    forward_methods = ("prepare",)

    def __init__(self, features: int, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.input_embedder = Linear(features, width)
        self.t_embedder = NumberEmbedding(width)
        self.c_embedder = ContextEmbedding(features, width)
        self.individual_token_refiner = BlockList([RefinerBlock(width, heads) for _ in range(depth)])

    def prepare(self, text: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Embed each row's states [L_i, features]: packed tokens [T,D], and the means of the rows [B,D]."""
        packed = torch.cat(text)
        means = torch.stack([row.float().mean(0) for row in text])
        return self.input_embedder(packed.to(self.input_embedder.weight.dtype)), self.c_embedder(means)

    def forward(self, text: Tensor, mean: Tensor, time: Tensor, sequence: PackedSequence) -> Tensor:
        """Return text tokens [T,D] for `text` [T,D] and `mean` [B,D] of `prepare`, and `time` [B] in 0..1000."""
        context = self.t_embedder(time) + mean
        for block in self.individual_token_refiner.blocks:
            text = block(text, context, sequence)
        return text
