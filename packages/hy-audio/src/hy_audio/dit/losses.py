"""What the audio DiT is trained with: flow matching, dropped conditions, and aligned representations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from hy_core.flow.path import interpolate, velocity
from torch import Tensor, nn

from hy_audio.dit.sampling import Network


def flow_loss(network: Network, latents: Tensor, noise: Tensor, time: Tensor, prepared: object) -> Tensor:
    """Mean square error of the velocity for latents [B,C,N] at times [B] on the core's path: a number.

    Draw the times with `hy_core.flow.schedule.sample_times`.
    """
    found = network(interpolate(latents, noise, time), time, prepared)
    return (found.float() - velocity(latents, noise).float()).square().mean()


def drop_conditions(
    *conditions: Sequence[Tensor],
    rate: float = 0.1,
    together: float = 0.0,
    generator: torch.Generator | None = None,
) -> tuple[list[Tensor], ...]:
    """Leave each condition of each row out with probability `rate`, independently: it becomes a row of none.

    With probability `together` a row loses all of them. Give lists of rows as `AudioDiT.prepare` takes them, each of
    as many rows.
    """
    chance = torch.rand(
        len(conditions) + 1,
        len(conditions[0]),
        generator=generator,
        device=None if generator is None else generator.device,
    )
    lost = (chance[:-1] < rate) | (chance[-1] < together)
    return tuple(
        [row[:0] if out else row for row, out in zip(rows, outs, strict=True)]
        for rows, outs in zip(conditions, lost.tolist(), strict=True)
    )


class Alignment(nn.Module):
    """Representation alignment (REPA): a block's audio tokens, mapped, should point where a teacher's do."""

    def __init__(self, width: int, teacher: int, hidden: int = 2048) -> None:
        super().__init__()
        enter = nn.Linear(width, hidden)
        self.map = nn.Sequential(
            enter,
            nn.SiLU(),
            nn.Linear(hidden, hidden),
            nn.SiLU(),
            nn.Linear(hidden, teacher),
        )

    def forward(self, tokens: Tensor, teacher: Tensor) -> Tensor:
        """1 minus the mean cosine of tokens [B,N,D] with features [B,S,teacher], stretched to N: a number."""
        theirs = F.interpolate(teacher.float().transpose(1, 2), size=tokens.shape[1], mode="linear")
        ours = self.map(tokens.to(next(self.map.parameters()).dtype)).float()
        return 1 - F.cosine_similarity(ours, theirs.transpose(1, 2), dim=-1).mean()
