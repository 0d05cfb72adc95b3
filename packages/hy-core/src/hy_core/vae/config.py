"""What a checkpoint says about its VAE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import log2
from typing import ClassVar

from hy_core.errors import UsageError
from hy_core.tables import check_sizes

MAX_STAGES = 8
MAX_LAYERS = 32


@dataclass(frozen=True)
class VAEConfig:
    """Shape of a causal 3D VAE; the defaults are the published `884-16c-hy`.

    `channels` are the widths of the stages, highest resolution first; `layers` is the number of residual
    blocks of an encoder stage (a decoder stage has one more). `space` and `time` are the compression factors,
    powers of two. `sample_size` [pixels] and `sample_frames` only set the sizes of the official tiles.
    """

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 16
    channels: tuple[int, ...] = (128, 256, 512, 512)
    layers: int = 2
    groups: int = 32
    scaling: float = 0.476986
    space: int = 8
    time: int = 4
    sample_size: int = 256
    sample_frames: int = 64
    attention: bool = True

    named: ClassVar[dict[str, VAEConfig]]

    def __post_init__(self) -> None:
        if not isinstance(self.channels, list | tuple) or not 0 < len(self.channels) <= MAX_STAGES:
            raise UsageError(
                f"VAE config: channels is {str(self.channels)[:60]}", hint=f"expected 1 to {MAX_STAGES} integers"
            )
        object.__setattr__(self, "channels", tuple(self.channels))
        check_sizes(self, "VAE config")
        if self.layers > MAX_LAYERS:
            raise UsageError(f"VAE config: layers is {self.layers}", hint=f"at most {MAX_LAYERS}")
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
        """Read a config of ours, of the original project or of diffusers, told apart by its keys."""
        if "temporal_compression_ratio" in config:
            return cls.from_diffusers(config)
        if "time_compression_ratio" in config or "block_out_channels" in config:
            return cls.from_official(config)
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(config) - known):
            raise UsageError(
                f"unknown VAE config field '{unknown[0]}'", hint=f"known: {', '.join(sorted(known))}"
            )
        return cls(**config)

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
        return cls(**{ours: config[theirs] for theirs, ours in names.items() if theirs in config})


VAEConfig.named = {
    "884-16c-hy": VAEConfig(),
    "pocket": VAEConfig(latent_channels=8, channels=(16, 32, 64), layers=1, groups=1, space=4),
}
