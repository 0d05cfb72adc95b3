"""What conditioners encode pictures, sound and text with; the network never sees it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hy_core.keyed import KeyedCache

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from hy_core.condition.contributions import TilingFor
    from hy_core.vae import VAE


@dataclass(frozen=True, eq=False)
class EncodingContext:
    """The model's parts, the segment and the caches, shared by the guidance branches of one clip and segment.

    `vae` is the model's; `tiling_for(frames)` is how it tiles a clip of that length (None: whole); `folder` is the
    model's folder. A clip made in segments is encoded per segment: `start_frame` is the segment's first frame in the
    clip, `previous_frames` are the frames it overlaps with, uint8 [F, H, W, 3], None in the first segment.
    `clip_cache.get("mine.features", make)` makes once what both branches need; `session_cache` lives as long as the
    session (encoders that many clips use).
    """

    vae: VAE | None = None
    tiling_for: TilingFor | None = None
    folder: Path | None = None
    start_frame: int = 0
    previous_frames: np.ndarray | None = None
    clip_cache: KeyedCache = field(default_factory=KeyedCache, repr=False)
    session_cache: KeyedCache = field(default_factory=KeyedCache, repr=False)
