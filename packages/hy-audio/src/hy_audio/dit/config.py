"""The numbers that say which audio DiT it is, and its named sizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from hy_core.errors import UsageError


@dataclass(frozen=True)
class AudioDiTConfig:
    """Shape of a tri-stream audio DiT. The paper publishes no sizes; the defaults are "base", ours.

    `rate` is the number of audio latents of a second: with it, times of frames become positions. `visual_rate` is
    the frame rate of visual features where none is said (the paper's CLIP: 4 fps). `sync_dim` is the size of
    timing features that are added to the audio tokens' modulation, 0 for none.
    """

    channels: int = 20
    rate: float = 31.25
    width: int = 768
    heads: int = 12
    depth_triple: int = 8
    depth_single: int = 12
    mlp_ratio: float = 4.0
    visual_dim: int = 1024
    visual_rate: float = 4.0
    text_dim: int = 1024
    sync_dim: int = 0
    rope_theta: float = 10000.0

    named: ClassVar[Mapping[str, AudioDiTConfig]]

    def __post_init__(self) -> None:
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise UsageError(
                f"audio DiT width {self.width} can't be divided among {self.heads} heads of even size",
                hint="64 channels a head is usual",
            )

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    def to_json(self) -> dict[str, Any]:
        """Return what `from_dict` reads, with plain JSON types only."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> AudioDiTConfig:
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(data) - known):
            raise UsageError(
                f"unknown audio DiT setting {unknown[0]!r}", hint=f"known: {', '.join(sorted(known))}"
            )
        return cls(**data)


AudioDiTConfig.named = {
    # Small pictures and their changes (`encoders.pixels`) in place of CLIP; the core's pocket text states.
    "pocket": AudioDiTConfig(
        width=128, heads=4, depth_triple=2, depth_single=4, visual_dim=448, text_dim=128, sync_dim=448
    ),
    "base": AudioDiTConfig(),
    "base-44k": AudioDiTConfig(channels=40, rate=44100 / 1024),
    "large": AudioDiTConfig(width=1024, heads=16, depth_triple=12, depth_single=24),
}
