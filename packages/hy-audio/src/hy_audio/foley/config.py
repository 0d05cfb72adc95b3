"""Configuration of the Foley network, and the released sizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from hy_core.errors import UsageError
from hy_core.tables import bounded, check_fields, from_table

from hy_audio.dit.config import MAX_BLOCKS, MAX_WIDTH

ACTIVATIONS = ("gelu_tanh", "gelu", "relu", "silu")
HEAD_NORMS = ("rms", "layer", "none")


@dataclass(frozen=True)
class FoleyConfig:
    """Shape of a HunyuanVideo-Foley network; the defaults are the released XXL.

    `interleaved` gives audio and visual tokens the rotary positions of one interleaved sequence; otherwise
    visual positions are stretched to the audio's. `sync_kernel` is the kernel of the timing features' embedder.
    `final_modulation` lets the last layer's shift and scale act: the released weights were trained and are run
    without (a three-dimensional condition disables them in the official code), so it is off.
    """

    width: int = bounded(1536, 2, MAX_WIDTH)
    heads: int = bounded(12, 1, 1024)
    depth_triple: int = bounded(18, 0, MAX_BLOCKS)
    depth_single: int = bounded(36, 0, MAX_BLOCKS)
    mlp_ratio: float = bounded(4.0, 0.01, 64)
    activation: str = "gelu_tanh"
    qkv_bias: bool = True
    head_norm: str = "rms"
    interleaved: bool = True
    sync_kernel: int = 1
    latent_channels: int = bounded(128, 1, MAX_WIDTH)
    text_dim: int = bounded(768, 1, MAX_WIDTH)
    visual_dim: int = bounded(768, 1, MAX_WIDTH)
    sync_dim: int = bounded(768, 1, MAX_WIDTH)
    final_modulation: bool = False

    #: The released sizes.
    named: ClassVar[Mapping[str, FoleyConfig]]

    def __post_init__(self) -> None:
        check_fields(self, "Foley config")
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise UsageError(
                f"Foley width {self.width} can't be divided among {self.heads} heads of even size",
                hint="the released sizes have 128 channels a head",
            )
        for name, value, known in (
            ("activation", self.activation, ACTIVATIONS),
            ("head_norm", self.head_norm, HEAD_NORMS),
            ("sync_kernel", self.sync_kernel, (1, 3)),
        ):
            if value not in known:
                raise UsageError(
                    f"Foley setting {name}: {value!r} is unknown", hint=f"use {', '.join(map(str, known))}"
                )

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    def to_json(self) -> dict[str, Any]:
        """Return what `from_dict` reads, with plain JSON types only."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FoleyConfig:
        """Read a config of ours or of the official project, detected by its keys."""
        if "model_config" in data or "hidden_size" in data:
            return cls.from_official(data)
        return from_table(cls, data, "Foley config")

    @classmethod
    def from_official(cls, data: Mapping[str, Any]) -> FoleyConfig:
        """Read the official YAML as a mapping, or its `model_kwargs` alone.

        What is absent has the official code's own default. Variants that the official code names but can't run
        (timing features as modulation, attention masks) are refused with UsageError.
        """
        if "model_config" in data:
            outer = data["model_config"]
            arguments = outer.get("model_kwargs") if isinstance(outer, Mapping) else None
            if not isinstance(arguments, Mapping):
                raise UsageError("Foley config: model_config.model_kwargs is missing")
            data = arguments
        unsupported = {
            "sync_modulation": data.get("sync_modulation", False),
            "use_attention_mask": data.get("use_attention_mask", False),
            "add_sync_feat_to_audio: false": not data.get("add_sync_feat_to_audio", False),
            "condition_projection": data.get("condition_projection", "linear") != "linear",
        }
        if wrong := [name for name, on in unsupported.items() if on]:
            raise UsageError(f"no Foley network was ever released with {wrong[0]}")
        norm = data.get("qk_norm_type", "rms") if data.get("qk_norm", True) else "none"
        return cls(
            width=data.get("hidden_size", 3072),
            heads=data.get("num_heads", 24),
            depth_triple=data.get("depth_triple_blocks", 19),
            depth_single=data.get("depth_single_blocks", 38),
            mlp_ratio=data.get("mlp_ratio", 4.0),
            activation=data.get("mlp_act_type", "gelu_tanh"),
            qkv_bias=data.get("qkv_bias", True),
            head_norm=norm,
            interleaved=data.get("interleaved_audio_visual_rope", False),
            sync_kernel=data.get("sync_in_ksz", 1),
            latent_channels=data.get("audio_vae_latent_dim", 128),
            text_dim=data.get("condition_dim", 768),
            visual_dim=data.get("clip_dim", 768),
            sync_dim=data.get("sync_feat_dim", 768),
        )


FoleyConfig.named = {
    "XXL": FoleyConfig(),
    "XL": FoleyConfig(width=1408, heads=11, depth_triple=12, depth_single=24),
}
