"""What training an avatar needs of its own: a loss that looks at the face, and conditions that are left out.

The objective is flow matching (hy_core.flow.path); which layers learn when is the recipe's business (facts 1.3.9).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

FACE, LIPS = 1.0, 2.0
"""How much more a place of the face, and of the lips, counts than one outside."""


def loss_weights(
    face: Tensor | None = None, lips: Tensor | None = None, more_face: float = FACE, more_lips: float = LIPS
) -> Tensor:
    """1 + more_face * face + more_lips * lips, for masks of 0 to 1 that broadcast over latents [B, C, F, h, w]."""
    weights = torch.ones(1)
    for mask, more in ((face, more_face), (lips, more_lips)):
        weights = weights if mask is None else weights.to(mask.device) + more * mask
    return weights


def weighted_loss(predicted: Tensor, target: Tensor, weights: Tensor, known: Tensor | None = None) -> Tensor:
    """The mean of weights * (predicted - target)^2 over latents [B, C, F, h, w].

    `known` bool [B, F] marks frames that are given (a reference held as the first frame): they are left out. The
    weighted sum is divided by the number of values that count, so that weights of 1 give the plain mean.
    """
    error = weights.to(predicted) * (predicted - target).square()
    if known is None:
        return error.mean()
    free = (~known)[:, None, :, None, None].to(predicted)
    return (error * free).sum() / free.expand_as(error).sum().clamp(min=1)


@dataclass(frozen=True)
class Dropout:
    """How often each condition is left out of a row, each by itself; and how often all of them are together.

    Leaving out means zeros, as in guidance: features of silence, no expression, no pose, no reference.
    """

    speech: float = 0.1
    expression: float = 0.1
    pose: float = 0.1
    reference: float = 0.05
    text: float = 0.1
    everything: float = 0.05

    def draw(self, rows: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Which rows lose what: bool [rows] for each condition."""
        names = [one.name for one in fields(self) if one.name != "everything"]
        chance = torch.rand(len(names) + 1, rows, generator=generator, device=generator.device)
        all_of_it = chance[-1] < self.everything
        return {
            name: (row < getattr(self, name)) | all_of_it
            for name, row in zip(names, chance[:-1], strict=True)
        }


def left_out(feed: Mapping[str, Any], lost: Mapping[str, Tensor]) -> dict[str, Any]:
    """The feed with the conditions of some rows set to zero; `lost` as `Dropout.draw` gives it.

    Text isn't in the feed: whoever encodes the prompts reads `lost["text"]`.
    """
    feed = dict(feed)

    def without(value: Tensor, rows: Tensor) -> Tensor:
        rows = rows.to(value.device).reshape(-1, *(1,) * (value.ndim - 1))
        return torch.where(rows, torch.zeros_like(value), value)

    for name in ("speech", "expression"):
        if name in feed:
            feed[name] = {**feed[name], "features": without(feed[name]["features"], lost[name])}
    for name in ("reference", "pose"):
        if name in feed:
            feed[name] = without(feed[name], lost[name])
    return feed
