"""What a checkpoint is, told from its keys and shapes and never from its file name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from hy_core.dit.config import DiTConfig
from hy_core.errors import HyError
from hy_core.vae.config import VAEConfig
from hy_core.weights.keys import COMFYUI, DIFFUSERS, OFFICIAL, PREFIXES, Table

Shapes = Mapping[str, tuple[int, ...]]

#: A key that only this layout of a HunyuanVideo DiT has.
_MARKERS = (
    (OFFICIAL, "txt_in.t_embedder.mlp.0.weight"),
    (COMFYUI, "txt_in.t_embedder.in_layer.weight"),
    (DIFFUSERS, "context_embedder.time_text_embed.timestep_embedder.linear_1.weight"),
)

#: How the family shares a head's channels among time, rows and columns: shapes don't show it. Those of 32 are pocket's
#: as it was first.
_ROPE_DIMS = {32: (8, 12, 12)} | {config.head_dim: config.rope_dims for config in DiTConfig.named.values()}

#: Something in the keys of other things that people have, and what they are.
_OTHERS = (
    ("encoder.down_blocks.", "a VAE"),
    ("lora_", "a LoRA"),
    (".lora", "a LoRA"),
    ("text_model.", "a CLIP text encoder"),
    ("layers.0.self_attn.", "a language model"),
    ("triple_blocks.", "a Foley audio model"),
    ("byt5_in.", "a HunyuanVideo-1.5 DiT"),
    ("cond_type_embed", "a HunyuanVideo-1.5 DiT"),
    ("blocks.0.cross_attn.", "a Wan DiT"),
    ("audio_proj.", "a HunyuanVideo-Avatar DiT"),
)


@dataclass(frozen=True)
class CheckpointFormat:
    """A DiT's checkpoint: how it names its parameters, and the prefix that all of them carry."""

    table: Table
    prefix: str = ""

    def strip(self, keys: Mapping[str, object]) -> dict[str, object]:
        """The entries of the DiT, without the prefix; those of other models in the file are left out."""
        return {
            key.removeprefix(self.prefix): value for key, value in keys.items() if key.startswith(self.prefix)
        }


def detect(shapes: Shapes) -> CheckpointFormat:
    """Tell the layout of a DiT's checkpoint. HyError if it is none, saying what it looks like instead."""
    for prefix in PREFIXES:
        for table, marker in _MARKERS:
            if prefix + marker in shapes:
                return CheckpointFormat(table, prefix)
    looks = next((what for part, what in _OTHERS if any(part in key for key in shapes)), None)
    some = ", ".join(sorted(shapes)[:3]) or "nothing"
    raise HyError(
        f"these weights aren't those of a HunyuanVideo DiT but {looks or f'of something that has {some}'}",
        hint="give the transformer's weights: official, diffusers or ComfyUI names",
    )


def dit_config(shapes: Shapes, table: Table = OFFICIAL) -> DiTConfig:
    """Read a DiT's configuration off the shapes of its parameters (without prefix).

    The one thing they don't show is how rotary positions share the channels of a head; it is that of the
    family's named sizes, and HyError for a size of head that none of them has.
    """

    def shape(key: str) -> tuple[int, ...]:
        source = table.source(key)
        if source is None or any(part not in shapes for part in source.keys):
            raise HyError(
                f"the checkpoint lacks {source.keys[0] if source else key}", hint="it isn't complete"
            )
        return source.shape([shapes[part] for part in source.keys])

    def count(pattern: str) -> int:
        number = 0
        while (source := table.source(pattern.format(number))) and source.keys[0] in shapes:
            number += 1
        return number

    width, in_channels, *patch = shape("img_in.proj.weight")
    singles = count("single_blocks.{}.q_norm.weight")
    doubles = count("double_blocks.{}.img_attn_q_norm.weight")
    norm = "double_blocks.0.img_attn_q_norm.weight" if doubles else "single_blocks.0.q_norm.weight"
    hidden = (
        shape("double_blocks.0.img_mlp.fc1.weight")[0]
        if doubles
        else shape("single_blocks.0.linear2.weight")[1] - width
    )
    (head_dim,) = shape(norm)
    if head_dim not in _ROPE_DIMS:
        raise HyError(
            f"heads of {head_dim} channels are in none of the known sizes",
            hint="put its config.json beside it",
        )
    guidance = table.source("guidance_in.mlp.0.weight")
    return DiTConfig(
        in_channels=in_channels,
        out_channels=shape("final_layer.linear.weight")[0] // math.prod(patch),
        width=width,
        heads=width // head_dim,
        depth_double=doubles,
        depth_single=singles,
        depth_refiner=count("txt_in.individual_token_refiner.blocks.{}.norm1.weight"),
        mlp_ratio=hidden / width,
        patch=tuple(patch),
        rope_dims=_ROPE_DIMS[head_dim],
        text_dim=shape("txt_in.input_embedder.weight")[1],
        pooled_dim=shape("vector_in.in_layer.weight")[1],
        guidance=guidance is not None and guidance.keys[0] in shapes,
    )


def vae_config(shapes: Shapes) -> VAEConfig:
    """Read a VAE's configuration off the shapes of its parameters; norm groups and scaling as published."""
    channels = []
    while (key := f"encoder.down_blocks.{len(channels)}.resnets.0.conv2.conv.weight") in shapes:
        channels.append(shapes[key][0])
    if not channels or "post_quant_conv.weight" not in shapes:
        some = ", ".join(sorted(shapes)[:3]) or "nothing"
        raise HyError(f"these weights aren't those of a HunyuanVideo VAE: they have {some}")
    layers = 0
    while f"encoder.down_blocks.0.resnets.{layers}.norm1.weight" in shapes:
        layers += 1
    if any(width % VAEConfig.groups for width in channels):
        raise HyError(
            "a VAE's shapes don't show its norm groups", hint="put its config.json beside the weights"
        )
    return VAEConfig(
        in_channels=shapes["encoder.conv_in.conv.weight"][1],
        out_channels=shapes["decoder.conv_out.conv.weight"][0],
        latent_channels=shapes["post_quant_conv.weight"][0],
        channels=tuple(channels),
        layers=layers,
        attention="encoder.mid_block.attentions.0.to_q.weight" in shapes,
    )
