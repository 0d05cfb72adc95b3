"""What plugins contribute to a Condition, as records that name their owner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

if TYPE_CHECKING:
    from hy_core.vae import Tiling

Time = Literal["clean", "video"]
FrameSlicer = Callable[[Any, Sequence[int]], Any]
"""`slicer(value, frames)`: a plugin's adapter input for some latent frames of the video."""
TilingFor = Callable[[int], "Tiling | None"]
"""`tiling_for(frames)`: how the VAE tiles a clip of that many frames; None: whole."""


@dataclass(frozen=True)
class TextTokens:
    """Tokens that a plugin adds to the text stream: one [n, D] for each row, or one for all rows."""

    owner: str
    tokens: tuple[Tensor, ...]
    before: bool


@dataclass(frozen=True)
class ContextFrames:
    """Frames that the network attends to beside the video and that are not part of the output.

    `latents` [B, C, f, h, w]; `at` holds their f temporal positions (the video's own are 0, 1, 2, ...; -1 lies
    before them); `time` is "clean" (diffusion time 0) or "video" (the video's own time).
    """

    owner: str
    latents: Tensor
    at: tuple[float, ...]
    time: Time


@dataclass(frozen=True)
class FixedFrame:
    """A latent frame of the video with a fixed value: `latent` [B, C, h, w] in the model's scale.

    `time` is its diffusion time, from 0 (clean) to 1 (noise); training may fix slightly noised frames.
    """

    owner: str
    latent: Tensor
    time: float = 0.0
