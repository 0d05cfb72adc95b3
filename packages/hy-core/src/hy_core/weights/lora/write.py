"""Write adapters of linear layers in the spellings that other programs load.

Each is a layer's name in a prefix and a separator, followed by the name of a part; what one program or another reads
was taken from its own key tables:

    hy          diffusion_model.double_blocks.0.img_attn_qkv.lora_A.weight      hy; diffusers converts it too
    diffusers   transformer.transformer_blocks.0.attn.to_q.lora_A.weight        load_lora_weights, PEFT
    comfyui     diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight      LoraLoader
    kohya       lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight         musubi-tuner, sd-scripts
    official    Hunyuan_video_I2V_lora_double_blocks_0_img_attn_qkv.lora_down.weight    the official I2V code

In all files alpha is the rank, so that a layer counts 1 wherever alpha is read, and where it isn't.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hy_core.errors import UsageError
from hy_core.weights.keys import COMFYUI, DIFFUSERS, OFFICIAL, Table
from hy_core.weights.lora.names import OFFICIAL_PREFIX
from hy_core.weights.save import save_safetensors

Parts = Mapping[str, Tensor]

_PEFT = {"down": "lora_A.weight", "up": "lora_B.weight", "magnitude": "dora_scale"}
_KOHYA = {"down": "lora_down.weight", "up": "lora_up.weight", "magnitude": "dora_scale"}


@dataclass(frozen=True)
class Spelling:
    """How one program names the tensors; `takes` are the parts that it can load."""

    table: Table
    prefix: str
    names: Mapping[str, str]
    takes: frozenset[str]
    dots: bool = True
    alpha: bool = True


_LORA, _DORA = frozenset({"down", "up"}), frozenset({"down", "up", "magnitude"})
_ALL = _DORA | {"lokr_w1", "lokr_w2"}
SPELLINGS: dict[str, Spelling] = {
    "hy": Spelling(OFFICIAL, "diffusion_model.", _PEFT, _ALL),
    "diffusers": Spelling(
        DIFFUSERS, "transformer.", {**_PEFT, "magnitude": "lora_magnitude_vector"}, _DORA, alpha=False
    ),
    "comfyui": Spelling(COMFYUI, "diffusion_model.", _PEFT, _ALL),
    "kohya": Spelling(OFFICIAL, "lora_unet_", _KOHYA, _ALL, dots=False),
    "official": Spelling(OFFICIAL, OFFICIAL_PREFIX, _KOHYA, _LORA, dots=False),
}


def can_write(layers: Mapping[str, Parts], spelling: str) -> bool:
    """Return whether the program of a spelling loads adapters with these parts (of any shape)."""
    return all(part in SPELLINGS[spelling].takes for parts in layers.values() for part in parts)


def write(
    path: str | Path,
    layers: Mapping[str, Parts],
    width: int,
    spelling: str = "hy",
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write the parts of layers (`hy_core.adapters.parts_of`) as a LoRA file.

    Down [rank, inputs], up [rows, rank], magnitude [rows], lokr_w1 and lokr_w2 of any shape, by our layer's name;
    `width` is the network's. `UsageError` for parts that the spelling's program doesn't load.
    """
    if spelling not in SPELLINGS:
        raise UsageError(f"no spelling {spelling!r}", f"use {', '.join(SPELLINGS)}")
    if not layers or not can_write(layers, spelling):
        kind = "a network without adapters" if not layers else "this kind of adapter"
        raise UsageError(f"{path}: {spelling} can't load {kind}", "use hy, comfyui or kohya")
    state = {
        key: tensor if key.endswith("alpha") else tensor.to(dtype)
        for key, tensor in spelled(layers, width, SPELLINGS[spelling])
    }
    save_safetensors(path, {key: tensor.contiguous() for key, tensor in state.items()}, metadata)


def spelled(layers: Mapping[str, Parts], width: int, spelling: Spelling) -> Iterator[tuple[str, Tensor]]:
    """Yield the keys and tensors of a file, of any shape.

    A layer that is several there gives each of them its `down` and the rows of the rest; all but the last have `width`.
    """
    for layer, parts in layers.items():
        source = spelling.table.source(f"{layer}.weight")
        assert source is not None, layer
        for index, key in enumerate(source.keys):
            name = key.removesuffix(".weight")
            name = spelling.prefix + (name if spelling.dots else name.replace(".", "_"))
            for part, tensor in parts.items():
                rowwise = part in ("up", "magnitude")
                whole = torch.cat(tensor.chunk(2)[::-1]) if source.swap and rowwise else tensor
                if rowwise and len(source.keys) > 1:
                    last = index == len(source.keys) - 1
                    whole = whole[index * width :] if last else whole[index * width : (index + 1) * width]
                if part == "magnitude" and spelling.names[part] == "dora_scale":
                    whole = whole[:, None]  # LyCORIS' shape: a norm for each row
                yield f"{name}.{spelling.names.get(part, part)}", whole
            if spelling.alpha:
                rank = len(parts["down"]) if "down" in parts else 1
                yield f"{name}.alpha", torch.tensor(float(rank))
