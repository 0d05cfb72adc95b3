"""Step caching: in some steps only the last blocks of the network run, on tokens of an earlier step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from hy_core.dit import DiT, Prepared


@dataclass(frozen=True)
class StepCache:
    """Which steps run the whole network: `full(step from 0, steps)`; the others run its last `blocks` blocks.

    Their input is taken from the last whole run of the same condition, frame by frame, so that it also serves
    windows that move. The cache takes the memory of the video's tokens once for each condition.
    """

    full: Callable[[int, int], bool]
    blocks: int = 1


@dataclass
class BlockCache:
    """The input of the network's last blocks: video tokens [B,F,S,D] and text tokens [T,D]; None until a whole run."""

    blocks: int = 1
    video: Tensor | None = None
    text: Tensor | None = None

    def run(
        self,
        dit: DiT,
        latents: Tensor,
        time: Tensor,
        prepared: Prepared,
        adapter_inputs: Mapping[str, Any],
        is_fixed: Tensor | None = None,
    ) -> Tensor:
        """Do as `dit(...)` does, but start at the last blocks if the tokens are there; else store them.

        Latents and the result are [B, C, F, h, w], `time` is [B, F], `is_fixed` bool [F].
        """
        vectors = dit.vectors(time, prepared, adapter_inputs, is_fixed)
        first, last = dit.blocks[: -self.blocks], dit.blocks[-self.blocks :]
        if self.video is None or self.text is None:
            video, text = dit.embed_tokens(latents, vectors, prepared, adapter_inputs)
            self.video, self.text = dit.run_blocks(first, video, text, vectors, prepared, adapter_inputs)
        video, _ = dit.run_blocks(last, self.video, self.text, vectors, prepared, adapter_inputs)
        velocity: Tensor = dit.final_layer(video, vectors.head, prepared.grid)
        return velocity


@dataclass
class TokenMemory:
    """The tokens of one condition's last whole run: of each latent frame, with the context frames and the text."""

    cache: StepCache
    frames: dict[int, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict)

    def recall(self, step: int, steps: int, frames: Sequence[int]) -> BlockCache:
        """The cached tokens of a run on these latent frames; empty if the whole network has to run."""
        cached = BlockCache(self.cache.blocks)
        if not self.cache.full(step, steps) and all(frame in self.frames for frame in frames):
            _, context, cached.text = self.frames[frames[0]]
            cached.video = torch.cat([context, *(self.frames[frame][0] for frame in frames)], 1)
        return cached

    def store(self, cached: BlockCache, frames: Sequence[int]) -> None:
        """Store the tokens of a whole run on these frames; context frames stand before the video's."""
        if cached.video is None or cached.text is None:
            return
        context, *video = cached.video.split([cached.video.shape[1] - len(frames), *[1] * len(frames)], 1)
        self.frames |= {frame: (x, context, cached.text) for frame, x in zip(frames, video, strict=True)}
