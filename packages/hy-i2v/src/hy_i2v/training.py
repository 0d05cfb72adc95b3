"""Given frames in training: a share of the batches starts from a picture, a pair of pictures, or a clip.

With the same data and weights as text to video, so that one network does both (facts of the paper's section 4.6: the
image's latent is the first frame, at time 0, outside the loss).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from hy_core.errors import UsageError
from hy_core.flow.path import interpolate

if TYPE_CHECKING:
    from hy_core.condition import Condition

OWNER = "i2v"


@dataclass(frozen=True)
class Shares:
    """The `[conditioning.i2v]` table of a recipe: how often which frames are given; the rest is text to video.

    `noise` is the largest time up to which the given latents are disturbed, against drift: a network that has only
    seen perfect first frames trusts every error of its own when it continues a clip.
    """

    first: float = 0.3
    ends: float = 0.1  # the first and the last frame
    start: float = 0.05  # the first half of the clip
    noise: float = 0.05

    def __post_init__(self) -> None:
        shares = (self.first, self.ends, self.start)
        if min(*shares, self.noise) < 0 or sum(shares) > 1 or self.noise >= 1:
            raise UsageError(
                "[conditioning.i2v]: shares must not be negative nor more than 1 together, noise below 1",
                "for instance first = 0.3, ends = 0.1, start = 0.05, noise = 0.05",
            )

    @classmethod
    def read(cls, table: Mapping[str, Any]) -> Shares:
        """Take a recipe's table; UsageError names what it doesn't know."""
        known = [f.name for f in fields(cls)]
        if unknown := sorted(set(table) - set(known)):
            raise UsageError(f"[conditioning.i2v]: unknown key {unknown[0]!r}", f"known: {', '.join(known)}")
        return cls(**table)


def give(batch: Mapping[str, Any], cond: Condition) -> None:
    """Pin the frames that this batch is given, if any. Pictures, of one frame, have nothing to give."""
    shares, generator = Shares.read(batch["settings"]), batch["generator"]
    latents = batch["latents"]

    def draw() -> float:
        return torch.rand(1, generator=generator, device=generator.device).item()

    kind = draw()
    if cond.frames == 1 or kind >= shares.first + shares.ends + shares.start:
        return
    if kind < shares.first:
        frames, held = [0], latents[:, :, :1]
    elif kind < shares.first + shares.ends:
        from hy_i2v.frames import still

        last = still(cond.vae, batch["pixels"]()[:, :, -1:].to(latents.device))
        frames, held = [0, -1], torch.cat([latents[:, :, :1], last], 2)
    else:
        half = cond.frames // 2
        frames, held = list(range(half)), latents[:, :, :half]
    time = shares.noise * draw()
    if time:
        noise = torch.randn(held.shape, generator=generator, device=generator.device).to(held)
        held = interpolate(held, noise, torch.tensor(time))
    cond.pin(OWNER, frames, held, time)
