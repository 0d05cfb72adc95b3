"""Detect what a checkpoint is from its keys and shapes, never from its file name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from hy_core.dit.config import DiTConfig
from hy_core.errors import HyError
from hy_core.vae.config import VAEConfig
from hy_core.weights.keys import COMFYUI, DIFFUSERS, OFFICIAL, Table
from hy_core.weights.wrappers import rank

T = TypeVar("T")

Shapes = Mapping[str, tuple[int, ...]]

#: A key that only this format of a HunyuanVideo DiT's checkpoint has.
_MARKERS = (
    (OFFICIAL, "txt_in.t_embedder.mlp.0.weight"),
    (COMFYUI, "txt_in.t_embedder.in_layer.weight"),
    (DIFFUSERS, "context_embedder.time_text_embed.timestep_embedder.linear_1.weight"),
)

#: Rotary channels of a head for time, rows and columns, by the head's size: shapes don't show them.
_ROPE_DIMS = {32: (8, 12, 12)} | {config.head_dim: config.rope_dims for config in DiTConfig.named.values()}

#: Parts of the keys of other kinds of weights, and what those are.
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
    ("_flat_param", "sharded by FSDP, not gathered"),
)


@dataclass(frozen=True)
class CheckpointFormat:
    """How a DiT's checkpoint names its parameters, and the prefix of all of them ("" or one that ends in ".")."""

    table: Table
    prefix: str = ""

    def strip(self, keys: Mapping[str, T]) -> dict[str, T]:
        """Return the DiT's entries without the prefix.

        Entries of other networks in the file, and counters (entries whose names have no dot) are left out.
        """
        return {
            key.removeprefix(self.prefix): value
            for key, value in keys.items()
            if key.startswith(self.prefix) and "." in key.removeprefix(self.prefix)
        }


def detect(shapes: Mapping[str, object]) -> CheckpointFormat:
    """Detect the format of a DiT's checkpoint from its keys, behind any prefix.

    Where a file holds several networks, the one with the preferred prefix (see `wrappers.WRAPPERS`) is taken. Raises
    HyError if there is no DiT, with what it looks like instead.
    """
    found = [
        CheckpointFormat(table, key.removesuffix(marker))
        for table, marker in _MARKERS
        for key in shapes
        if key == marker or key.endswith(f".{marker}")
    ]
    if found:
        return min(found, key=lambda one: (rank(one.prefix), len(one.prefix), one.prefix))
    looks = next((what for part, what in _OTHERS if any(part in key for key in shapes)), None)
    some = ", ".join(key[:60] for key in sorted(shapes)[:3]) or "nothing"
    raise HyError(
        f"these weights aren't those of a HunyuanVideo DiT but {looks or f'of something that has {some}'}",
        hint="give the transformer's weights: official, diffusers or ComfyUI names",
    )


def dit_config(shapes: Shapes, table: Table = OFFICIAL) -> DiTConfig:
    """Derive a DiT's configuration from the shapes of its parameters (without prefix).

    Shapes don't show how rotary positions divide the channels of a head; those of the family's named sizes are taken.
    Raises HyError for a head of another size, and for shapes that aren't those of a DiT.
    """

    try:
        return _dit_config(shapes, table)
    except (ValueError, IndexError, TypeError, ZeroDivisionError, OverflowError) as error:
        raise HyError(
            f"the shapes aren't those of a HunyuanVideo DiT: {error}", "put its config.json beside it"
        ) from None


def _dit_config(shapes: Shapes, table: Table) -> DiTConfig:
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
        patch=(patch[0], patch[1], patch[2]),
        rope_dims=_ROPE_DIMS[head_dim],
        text_dim=shape("txt_in.input_embedder.weight")[1],
        pooled_dim=shape("vector_in.in_layer.weight")[1],
        guidance=guidance is not None and guidance.keys[0] in shapes,
    )


def vae_config(shapes: Shapes) -> VAEConfig:
    """Derive a VAE's configuration from the shapes of its parameters; norm groups and scaling are the published ones.

    Raises HyError for weights of something else, and for widths that the published norm groups don't divide.
    """
    channels: list[int] = []
    while (key := f"encoder.down_blocks.{len(channels)}.resnets.0.conv2.conv.weight") in shapes:
        channels.append(shapes[key][0] if shapes[key] else 0)
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
    try:
        return VAEConfig(
            in_channels=shapes["encoder.conv_in.conv.weight"][1],
            out_channels=shapes["decoder.conv_out.conv.weight"][0],
            latent_channels=shapes["post_quant_conv.weight"][0],
            channels=tuple(channels),
            layers=layers,
            attention="encoder.mid_block.attentions.0.to_q.weight" in shapes,
        )
    except (KeyError, IndexError) as error:
        raise HyError(
            f"the shapes aren't those of a HunyuanVideo VAE: {error}", "it isn't complete"
        ) from None
