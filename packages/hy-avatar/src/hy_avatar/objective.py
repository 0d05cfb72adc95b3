"""Loss weights and condition dropout of the avatar's training, and conditions left out for guidance.

The objective is flow matching (hy_core.flow.path); the recipe says which layers are trained when (facts 1.3.9).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from hy_core.tables import bounded
from torch import Tensor

FACE, LIPS = 1.0, 2.0
"""Added to the loss weight of places of the face, and of the lips; it is 1 elsewhere."""


def loss_weights(
    face: Tensor | None = None, lips: Tensor | None = None, more_face: float = FACE, more_lips: float = LIPS
) -> Tensor:
    """Return 1 + more_face * face + more_lips * lips, for masks in 0..1 that broadcast over latents [B, C, F, h, w]."""
    weights = torch.ones(1)
    for mask, more in ((face, more_face), (lips, more_lips)):
        weights = weights if mask is None else weights.to(mask.device) + more * mask
    return weights


@dataclass(frozen=True)
class Dropout:
    """The probability with which each condition of a row is dropped, independently.

    Of the rows without a prompt (the recipe's `caption_dropout`), the share `everything` loses all guided conditions,
    as the negative branch does. A dropped condition is zeros: silence, no expression, no pose, no reference.
    """

    speech: float = bounded(0.1, 0, 1)
    expression: float = bounded(0.1, 0, 1)
    pose: float = bounded(0.1, 0, 1)
    reference: float = bounded(0.05, 0, 1)
    everything: float = bounded(0.5, 0, 1)

    def draw(
        self, prompts: Sequence[str], generator: torch.Generator, guided: Sequence[str]
    ) -> dict[str, Tensor]:
        """Draw which rows lose each condition: bool [B] by name. `guided` are those that guidance applies to."""
        names = [one.name for one in fields(self) if one.name != "everything"]
        chance = torch.rand(len(names) + 1, len(prompts), generator=generator, device=generator.device)
        wordless = torch.tensor([not prompt for prompt in prompts], device=generator.device)
        bare = wordless & (chance[-1] < self.everything)
        return {
            name: (row < getattr(self, name)) | (bare & (name in guided))
            for name, row in zip(names, chance[:-1], strict=True)
        }


def drop(inputs: Mapping[str, Any], dropped: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return adapter inputs with the conditions of some rows set to zero; `dropped` is of `Dropout.draw`.

    Where an expression is dropped, the pose acts on the face too: nothing else drives it.

    Rows to drop are bool [B].
    """
    inputs = dict(inputs)

    def zeroed(value: Tensor, rows: Tensor) -> Tensor:
        return torch.where(_broadcast(rows, value), torch.zeros_like(value), value)

    for name in ("speech", "expression"):
        if name in inputs and name in dropped:
            inputs[name] = {**inputs[name], "features": zeroed(inputs[name]["features"], dropped[name])}
    for name in ("reference", "pose"):
        if name in inputs and name in dropped:
            inputs[name] = zeroed(inputs[name], dropped[name])
    if "pose_mask" in inputs and "expression" in dropped:
        mask = inputs["pose_mask"]
        inputs["pose_mask"] = torch.where(
            _broadcast(dropped["expression"], mask), torch.ones_like(mask), mask
        )
    return inputs


def _broadcast(rows: Tensor, value: Tensor) -> Tensor:
    """Return flags [B] in the shape [B, 1, ...] of values [B, ...]."""
    return rows.to(value.device).reshape(-1, *(1,) * (value.ndim - 1))


def without(inputs: Mapping[str, Any], conditions: Sequence[str]) -> dict[str, Any]:
    """Return adapter inputs of the same form without some conditions, as for a negative branch."""
    return drop(inputs, dict.fromkeys(conditions, torch.ones(1, dtype=torch.bool)))
