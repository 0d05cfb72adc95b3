"""Configuration of the tri-stream audio DiT, and its named sizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from hy_core.errors import UsageError
from hy_core.tables import bounded, check_fields, from_table

MAX_BLOCKS, MAX_WIDTH = 1024, 1 << 16
"""Limits of what a configuration file may ask for."""


@dataclass(frozen=True)
class AudioDiTConfig:
    """Shape of a tri-stream audio DiT. The paper publishes no sizes; the defaults are "base", ours.

    `rate`: audio latents a second, which place frames among them; `visual_rate`: default frame rate of visual features
    (the paper's CLIP: 4 fps); `sync_dim`: size of the timing features that are added to the modulation of audio
    tokens, 0 for none.
    """

    channels: int = bounded(20, 1, MAX_WIDTH)
    rate: float = bounded(31.25, 0.1, 1000)
    width: int = bounded(768, 2, MAX_WIDTH)
    heads: int = bounded(12, 1, 1024)
    depth_triple: int = bounded(8, 0, MAX_BLOCKS)
    depth_single: int = bounded(12, 0, MAX_BLOCKS)
    mlp_ratio: float = bounded(4.0, 0.01, 64)
    visual_dim: int = bounded(1024, 1, MAX_WIDTH)
    visual_rate: float = bounded(4.0, 0.1, 240)
    text_dim: int = bounded(1024, 1, MAX_WIDTH)
    sync_dim: int = bounded(0, 0, MAX_WIDTH)
    rope_theta: float = bounded(10000.0, 1, 1e9)

    named: ClassVar[Mapping[str, AudioDiTConfig]]

    def __post_init__(self) -> None:
        check_fields(self, "audio DiT config")
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
        """Make a configuration of a table; a one-line `UsageError` for unknown keys, wrong types and ranges."""
        return from_table(cls, data, "audio DiT config")


AudioDiTConfig.named = {
    # `encoders.pixels` in place of CLIP, and the states of the core's pocket language model.
    "pocket": AudioDiTConfig(
        width=128, heads=4, depth_triple=2, depth_single=4, visual_dim=448, text_dim=128, sync_dim=448
    ),
    "base": AudioDiTConfig(),
    "base-44k": AudioDiTConfig(channels=40, rate=44100 / 1024),
    "large": AudioDiTConfig(width=1024, heads=16, depth_triple=12, depth_single=24),
}
