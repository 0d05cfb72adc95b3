"""The drivers' features to tokens, once per run: what the adapters after the blocks attend to.

B rows, F latent frames, P pixel frames (4F-3), K driven faces, n tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from hy_core.dit.layers import Linear
from hy_core.errors import UsageError
from torch import Tensor, nn

from hy_avatar.config import AvatarConfig, Expression, Speech

GROUP = 4
"""Pixel frames of a latent frame; the first latent frame is the first pixel frame alone."""


class SpeechProjection(nn.Module):
    """Speech features [..., window, layers, channels] to tokens [..., n, D] (HunyuanVideo-Avatar; facts 1.3.2)."""

    def __init__(self, config: Speech, width: int) -> None:
        super().__init__()
        self.tokens, self.window = config.tokens, (config.window, config.layers, config.channels)
        self.proj1 = Linear(config.window * config.layers * config.channels, config.hidden)
        self.proj2 = Linear(config.hidden, config.hidden)
        self.proj3 = Linear(config.hidden, config.tokens * width)
        self.norm = nn.LayerNorm(width)

    def forward(self, features: Tensor) -> Tensor:
        if tuple(features.shape[-3:]) != self.window:
            (_, layers, channels), (_, own_layers, own_channels) = features.shape[-3:], self.window
            raise UsageError(
                f"the speech features have {layers} layers of {channels} channels, these weights take {own_layers} of "
                f"{own_channels}",
                "use the Whisper model that they were trained with",
            )
        x = features.to(self.proj1.weight).flatten(-3)
        x = F.relu(self.proj2(F.relu(self.proj1(x))))
        return self.norm(self.proj3(x).unflatten(-1, (self.tokens, -1)))


class ExpressionEncoder(nn.Module):
    """Expression latents of pixel frames [B, P, features] to tokens of latent frames [B, F, n, D] (facts 1.3.4).

    Two convolutions over time, then learnt queries that attend to the frames of each latent frame.
    """

    def __init__(self, config: Expression, width: int) -> None:
        super().__init__()
        self.read = Linear(config.features, config.hidden)
        self.time = nn.ModuleList([nn.Conv1d(config.hidden, config.hidden, 3, padding=1) for _ in range(2)])
        self.queries = nn.Parameter(torch.randn(config.tokens, config.hidden) * 0.02)
        self.keys = Linear(config.hidden, 2 * config.hidden)
        self.write = Linear(config.hidden, width)
        self.norm = nn.LayerNorm(width)
        self.order = frame_order(config.hidden) if config.ordered else None

    def forward(self, latents: Tensor) -> Tensor:
        x = self.read(latents.to(self.read.weight)).mT
        for layer in self.time:
            x = x + F.silu(layer(x))
        frames = group_frames(x.mT.unsqueeze(2))  # [B, F, 4, hidden]
        k, v = self.keys(frames if self.order is None else frames + self.order).chunk(2, dim=-1)
        read = F.scaled_dot_product_attention(self.queries.to(k).expand(*k.shape[:2], -1, -1), k, v)
        return self.norm(self.write(read + self.queries.to(k)))


def group_frames(tokens: Tensor) -> Tensor:
    """Group tokens of pixel frames [B, P, n, D] by latent frames: [B, F, 4n, D].

    The grouping is the causal VAE's: frame 0 alone (repeated four times here), then four by four (facts 1.3.2).
    """
    first = tokens[:, :1].expand(-1, GROUP - 1, -1, -1)
    return torch.cat((first, tokens), 1).unflatten(1, (-1, GROUP)).flatten(2, 3)


def frame_order(width: int) -> nn.Parameter:
    """Return learnt vectors [4, width], one added to each of the four pixel frames of a latent frame."""
    return nn.Parameter(torch.randn(GROUP, width) * 0.3)  # beside tokens of size 1


class DriverTokens(nn.Module):
    """Adds `tokens` to the inputs of speech and expression, from their `features`.

    Speech features are [B, K, P, window, layers, channels], expression features [B, K, P, features]; both become
    tokens [B, K, F, n, D]. Inputs of other names are passed on.
    """

    def __init__(self, config: AvatarConfig, width: int) -> None:
        super().__init__()
        self.audio_proj = SpeechProjection(config.speech, width) if config.speech else None
        self.order = frame_order(width) if config.speech and config.speech.ordered else None
        self.expression = ExpressionEncoder(config.expression, width) if config.expression else None

    def forward(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        inputs = dict(inputs)
        if self.audio_proj is not None and "speech" in inputs:
            features = inputs["speech"]["features"]
            tokens = group_frames(self.audio_proj(features).flatten(0, 1))
            if self.order is not None:
                tokens = tokens + self.order.repeat_interleave(tokens.shape[2] // GROUP, 0)
            tokens = tokens.unflatten(0, features.shape[:2])
            inputs["speech"] = {**inputs["speech"], "tokens": tokens}
        if self.expression is not None and "expression" in inputs:
            latents = inputs["expression"]["features"]
            tokens = self.expression(latents.flatten(0, 1)).unflatten(0, latents.shape[:2])
            inputs["expression"] = {**inputs["expression"], "tokens": tokens}
        return inputs
