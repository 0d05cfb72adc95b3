"""The numbers that say which DiT it is, and the named members of the family."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from hy_core.errors import UsageError
from hy_core.tables import bounded, check_fields, from_table, shown


@dataclass(frozen=True)
class DiTConfig:
    """Shape of a DiT. The defaults are those of HYVideo-T/2-cfgdistill, the released 13B model.

    `rope_dims` are the channels of a head that turn with time, row and column; they add up to all of them.
    `guidance` says whether the model was distilled to take the guidance scale as an input.
    """

    in_channels: int = bounded(16, 1, 65536)
    out_channels: int = bounded(16, 1, 65536)
    width: int = bounded(3072, 1, 65536)
    heads: int = bounded(24, 1, 1024)
    depth_double: int = bounded(20, 0, 1024)
    depth_single: int = bounded(40, 0, 1024)
    depth_refiner: int = bounded(2, 0, 1024)
    mlp_ratio: float = bounded(4.0, 0.01, 64)
    patch: tuple[int, int, int] = bounded((1, 2, 2), 1, 64)
    rope_dims: tuple[int, int, int] = bounded((16, 56, 56), 0, 4096)
    rope_theta: float = bounded(256.0, 1, 1e9)
    text_dim: int = bounded(4096, 1, 1048576)
    pooled_dim: int = bounded(768, 1, 1048576)
    guidance: bool = True

    #: Named sizes: ours, and those of the official code.
    named: ClassVar[Mapping[str, DiTConfig]]

    def __post_init__(self) -> None:
        check_fields(self, "DiT config")
        if self.width % self.heads:
            raise UsageError(f"DiT width {self.width} can't be divided among {self.heads} heads")
        if sum(self.rope_dims) != self.head_dim or any(dim % 2 for dim in self.rope_dims):
            raise UsageError(
                f"rotary dimensions {self.rope_dims} don't fill a head of {self.head_dim} channels",
                hint="three even numbers that add up to width / heads",
            )

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    @property
    def mlp_width(self) -> int:
        return int(self.width * self.mlp_ratio)

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads, with plain JSON types only."""
        table: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return table

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> DiTConfig:
        """Read what `to_json` returns; UsageError names a key that is unknown, of a wrong type or out of range."""
        return from_table(cls, data, "DiT config")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> DiTConfig:
        """Read a config of ours, of diffusers or of the original package, detected by its keys."""
        if "num_attention_heads" in data:
            return cls.from_diffusers(data)
        return cls.from_official(data) if "hidden_size" in data else cls.from_json(data)

    @classmethod
    def from_official(cls, data: Mapping[str, Any]) -> DiTConfig:
        """Read the arguments of the original package's transformer; leave alone what its variants add."""
        names = {
            "in_channels": "in_channels",
            "out_channels": "out_channels",
            "hidden_size": "width",
            "heads_num": "heads",
            "num_heads": "heads",
            "mm_double_blocks_depth": "depth_double",
            "depth_double_blocks": "depth_double",
            "mm_single_blocks_depth": "depth_single",
            "depth_single_blocks": "depth_single",
            "mlp_width_ratio": "mlp_ratio",
            "patch_size": "patch",
            "rope_dim_list": "rope_dims",
            "rope_theta": "rope_theta",
            "text_states_dim": "text_dim",
            "text_states_dim_2": "pooled_dim",
            "guidance_embed": "guidance",
        }
        found = {ours: data[theirs] for theirs, ours in names.items() if theirs in data}
        return cls(**{"guidance": False, **found})

    @classmethod
    def from_diffusers(cls, data: Mapping[str, Any]) -> DiTConfig:
        """Read the `config.json` of a diffusers `HunyuanVideoTransformer3DModel`."""
        names = {
            "in_channels": "in_channels",
            "out_channels": "out_channels",
            "num_attention_heads": "heads",
            "num_layers": "depth_double",
            "num_single_layers": "depth_single",
            "num_refiner_layers": "depth_refiner",
            "mlp_ratio": "mlp_ratio",
            "rope_axes_dim": "rope_dims",
            "rope_theta": "rope_theta",
            "text_embed_dim": "text_dim",
            "pooled_projection_dim": "pooled_dim",
            "guidance_embeds": "guidance",
        }
        ours = {ours: data[theirs] for theirs, ours in names.items() if theirs in data}
        heads, width = data.get("num_attention_heads", 24), data.get("attention_head_dim", 128)
        for key, value in (("num_attention_heads", heads), ("attention_head_dim", width)):
            if not isinstance(value, int) or isinstance(value, bool):
                raise UsageError(f"DiT config: {key}: needs a whole number, not {shown(value)}")
        ours["width"] = heads * width
        side = data.get("patch_size", 2)
        ours["patch"] = (data.get("patch_size_t", 1), side, side)
        return cls(**ours)

    def to_diffusers(self) -> dict[str, Any]:
        """Return the `config.json` of a diffusers `HunyuanVideoTransformer3DModel`; UsageError for oblong patches.

        `image_condition_type` is that of a network with condition channels; whether one of 16 channels replaces the
        first frame's tokens isn't in the weights.
        """
        if self.patch[1] != self.patch[2]:
            raise UsageError(f"diffusers has no patches of {self.patch[1]}x{self.patch[2]}")
        return {
            "_class_name": "HunyuanVideoTransformer3DModel",
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "num_attention_heads": self.heads,
            "attention_head_dim": self.width // self.heads,
            "num_layers": self.depth_double,
            "num_single_layers": self.depth_single,
            "num_refiner_layers": self.depth_refiner,
            "mlp_ratio": self.mlp_ratio,
            "patch_size": self.patch[1],
            "patch_size_t": self.patch[0],
            "qk_norm": "rms_norm",
            "guidance_embeds": self.guidance,
            "text_embed_dim": self.text_dim,
            "pooled_projection_dim": self.pooled_dim,
            "rope_theta": self.rope_theta,
            "rope_axes_dim": list(self.rope_dims),
            "image_condition_type": "latent_concat" if self.in_channels > self.out_channels else None,
        }


DiTConfig.named = {
    "pocket": DiTConfig(
        in_channels=8,
        out_channels=8,
        width=160,
        heads=2,
        depth_double=2,
        depth_single=4,
        depth_refiner=1,
        rope_dims=(16, 32, 32),
        text_dim=128,
        pooled_dim=64,
        guidance=False,
    ),
    "HYVideo-T/2": DiTConfig(guidance=False),
    "HYVideo-T/2-cfgdistill": DiTConfig(),
    "HYVideo-S/2": DiTConfig(
        width=480, heads=5, depth_double=6, depth_single=12, rope_dims=(12, 42, 42), guidance=False
    ),
}
