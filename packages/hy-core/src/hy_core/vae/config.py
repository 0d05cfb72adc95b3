"""What a checkpoint says about its VAE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import log2
from typing import Any, ClassVar

from hy_core.errors import UsageError
from hy_core.tables import bounded, check_fields, from_table


@dataclass(frozen=True)
class VAEConfig:
    """Shape of a causal 3D VAE; the defaults are the published `884-16c-hy`.

    `channels` are the widths of the stages, highest resolution first; `layers` is the number of residual
    blocks of an encoder stage (a decoder stage has one more). `space` and `time` are the compression factors,
    powers of two. `sample_size` [pixels] and `sample_frames` only set the sizes of the official tiles.
    """

    in_channels: int = bounded(3, 1, 1024)
    out_channels: int = bounded(3, 1, 1024)
    latent_channels: int = bounded(16, 1, 65536)
    channels: tuple[int, ...] = bounded((128, 256, 512, 512), 1, 65536)
    layers: int = bounded(2, 0, 64)
    groups: int = bounded(32, 1, 1024)
    scaling: float = bounded(0.476986, 1e-06, 1000000.0)
    space: int = bounded(8, 1, 1024)
    time: int = bounded(4, 1, 1024)
    sample_size: int = bounded(256, 1, 65536)
    sample_frames: int = bounded(64, 1, 65536)
    attention: bool = True

    named: ClassVar[dict[str, VAEConfig]]

    def __post_init__(self) -> None:
        check_fields(self, "VAE config")
        if not 1 <= len(self.channels) <= 16:
            raise UsageError(f"VAE config: channels: {len(self.channels)} stages are not between 1 and 16")
        for name, factor in (("space", self.space), ("time", self.time)):
            if factor < 1 or factor & (factor - 1) or factor > 2 ** (len(self.channels) - 1):
                raise UsageError(
                    f"VAE compression {name}={factor} does not fit {len(self.channels)} stages",
                    hint=f"use a power of two up to {2 ** (len(self.channels) - 1)}",
                )
        if bad := [c for c in self.channels if c % self.groups]:
            raise UsageError(
                f"VAE channels {bad[0]} are not divisible by {self.groups} norm groups",
                hint="make every entry of channels a multiple of groups",
            )

    def strides(self) -> list[tuple[int, int, int]]:
        """Resolution change (T, H, W) after each stage, the last stage's being (1, 1, 1).

        The encoder divides by them, the decoder multiplies, and both go through this list in the same order:
        space from the first stage on, time in the last stages before the final one.
        """
        last = len(self.channels) - 1
        doublings_space, doublings_time = int(log2(self.space)), int(log2(self.time))
        return [
            (2 if last - doublings_time <= i < last else 1, *(2 * (2 if i < doublings_space else 1,)))
            for i in range(last + 1)
        ]

    def latent_size(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Latent (t, h, w) of a clip; raises UsageError naming the nearest valid size if it has none."""
        if frames < 1 or (frames - 1) % self.time:
            below = max((frames - 1) // self.time, 0) * self.time + 1
            raise UsageError(
                f"the VAE takes {self.time}k+1 frames, not {frames}",
                hint=f"use {below} or {below + self.time} frames",
            )
        for name, size in (("height", height), ("width", width)):
            if size < self.space or size % self.space:
                nearest = max(round(size / self.space), 1) * self.space
                raise UsageError(
                    f"{name} {size} is not a multiple of {self.space}", hint=f"use {name} {nearest}"
                )
        return (frames - 1) // self.time + 1, height // self.space, width // self.space

    def to_json(self) -> dict[str, object]:
        """Our own field names, as JSON can hold them."""
        return asdict(self) | {"channels": list(self.channels)}

    @classmethod
    def from_dict(cls, config: Mapping[str, object]) -> VAEConfig:
        """Read a config of ours, of the original project or of diffusers, detected by its keys."""
        if "temporal_compression_ratio" in config:
            return cls.from_diffusers(config)
        if "time_compression_ratio" in config or "block_out_channels" in config:
            return cls.from_official(config)
        return from_table(cls, config, "VAE config")

    @classmethod
    def from_official(cls, config: Mapping[str, object]) -> VAEConfig:
        """Read `vae/config.json` of the original project."""
        return cls._from_blocks(config, "time_compression_ratio")

    @classmethod
    def from_diffusers(cls, config: Mapping[str, object]) -> VAEConfig:
        """Read `config.json` of an `AutoencoderKLHunyuanVideo`."""
        return cls._from_blocks(config, "temporal_compression_ratio")

    @classmethod
    def _from_blocks(cls, config: Mapping[str, object], time_key: str) -> VAEConfig:
        names = {
            "in_channels": "in_channels",
            "out_channels": "out_channels",
            "latent_channels": "latent_channels",
            "block_out_channels": "channels",
            "layers_per_block": "layers",
            "norm_num_groups": "groups",
            "scaling_factor": "scaling",
            "spatial_compression_ratio": "space",
            time_key: "time",
            "sample_size": "sample_size",
            "sample_tsize": "sample_frames",
            "mid_block_add_attention": "attention",
        }
        if config.get("act_fn", "silu") not in ("silu", "swish"):
            raise UsageError(
                f"VAE activation '{config['act_fn']}' is not supported", hint="the VAE uses silu"
            )
        known: dict[str, Any] = {ours: config[theirs] for theirs, ours in names.items() if theirs in config}
        return cls(**known)


VAEConfig.named = {
    "884-16c-hy": VAEConfig(),
    "pocket": VAEConfig(latent_channels=8, channels=(16, 32, 64), layers=1, groups=1, space=4),
}
