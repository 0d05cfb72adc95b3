"""Steps that reuse: in some steps only the last blocks of the network run, on what they were given before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hy_core.dit import BlockCache


@dataclass(frozen=True)
class StepCache:
    """Which steps run the whole network: `full(step from 0, steps)`; the others run its last `blocks` blocks.

    What those read is kept from the last whole run of the same condition, frame by frame, so that it also serves
    windows that move. It takes the memory of the video's tokens once for each condition.
    """

    full: Callable[[int, int], bool]
    blocks: int = 1


@dataclass
class Memory:
    """What one condition's last whole run left: each latent frame's tokens, and what stood beside them."""

    cache: StepCache
    frames: dict[int, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict)

    def kept(self, step: int, steps: int, frames: Sequence[int]) -> BlockCache:
        """What a run on these latent frames begins with; empty if the whole network has to run."""
        kept = BlockCache(self.cache.blocks)
        if not self.cache.full(step, steps) and all(frame in self.frames for frame in frames):
            _, context, kept.y = self.frames[frames[0]]
            kept.x = torch.cat([context, *(self.frames[frame][0] for frame in frames)], 1)
        return kept

    def keep(self, kept: BlockCache, frames: Sequence[int]) -> None:
        """Remember what a run on these frames has filled; context stands before the video's frames."""
        if kept.x is None or kept.y is None:
            return
        context, *video = kept.x.split([kept.x.shape[1] - len(frames), *[1] * len(frames)], 1)
        self.frames |= {frame: (x, context, kept.y) for frame, x in zip(frames, video, strict=True)}
