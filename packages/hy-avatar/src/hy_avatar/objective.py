"""What training an avatar needs of its own: places that count more, and conditions that are left out.

The objective is flow matching (hy_core.flow.path); which layers learn when is the recipe's business (facts 1.3.9).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


@dataclass(frozen=True)
class Dropout:
    """How often each condition is left out of a row, each by itself.

    Of the rows whose prompt is left out (which the recipe says), the share `everything` loses all conditions that
    guidance is for, as its other side does. Leaving out means zeros: features of silence, no expression, no pose, no
    reference.
    """

    speech: float = 0.1
    expression: float = 0.1
    pose: float = 0.1
    reference: float = 0.05
    everything: float = 0.5

    def draw(
        self, prompts: Sequence[str], generator: torch.Generator, guided: Sequence[str]
    ) -> dict[str, Tensor]:
        """Which rows lose what: bool [rows] for each condition. `guided` are those that guidance is for."""
        names = [one.name for one in fields(self) if one.name != "everything"]
        chance = torch.rand(len(names) + 1, len(prompts), generator=generator, device=generator.device)
        wordless = torch.tensor([not prompt for prompt in prompts], device=generator.device)
        bare = wordless & (chance[-1] < self.everything)
        return {
            name: (row < getattr(self, name)) | (bare & (name in guided))
            for name, row in zip(names, chance[:-1], strict=True)
        }


def left_out(feed: Mapping[str, Any], lost: Mapping[str, Tensor]) -> dict[str, Any]:
    """The feed with the conditions of some rows set to zero; `lost` as `Dropout.draw` gives it.

    What `lost` doesn't name stays. A pose beside a lost expression has the face too: there is nothing else that
    would drive it.
    """
    feed = dict(feed)

    def without(value: Tensor, rows: Tensor) -> Tensor:
        return torch.where(rows_of(rows, value), torch.zeros_like(value), value)

    for name in ("speech", "expression"):
        if name in feed and name in lost:
            feed[name] = {**feed[name], "features": without(feed[name]["features"], lost[name])}
    for name in ("reference", "pose"):
        if name in feed and name in lost:
            feed[name] = without(feed[name], lost[name])
    if "pose_mask" in feed and "expression" in lost:
        mask = feed["pose_mask"]
        feed["pose_mask"] = torch.where(rows_of(lost["expression"], mask), torch.ones_like(mask), mask)
    return feed


def rows_of(rows: Tensor, value: Tensor) -> Tensor:
    """Flags [B] to stand beside values [B, ...]."""
    return rows.to(value.device).reshape(-1, *(1,) * (value.ndim - 1))


def undriven(feed: Mapping[str, Any], conditions: Sequence[str]) -> dict[str, Any]:
    """The feed without some conditions, in the same form: without all that guidance is for it is its other side."""
    return left_out(feed, dict.fromkeys(conditions, torch.ones(1, dtype=torch.bool)))
