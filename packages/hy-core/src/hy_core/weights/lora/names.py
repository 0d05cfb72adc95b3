"""The spellings of LoRA files: which layer a key belongs to, and what it holds of it.

Seen in published files: the official image-to-video effects (`Hunyuan_video_I2V_lora_double_blocks_0_...lora_down`),
kohya and musubi (`lora_unet_...`), OneTrainer (`lora_transformer_...`), LyCORIS (`lycoris_...`), PEFT
(`base_model.model.`, `lora_A`, `lora_A.NAME`), diffusers (`transformer.`, `.lora.down`, `.processor.to_q_lora.down`)
and ComfyUI (`diffusion_model.`, `diff`, `diff_b`), each after official, ComfyUI or diffusers names of layers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from hy_core.dit import DiT
from hy_core.weights.keys import COMFYUI, DIFFUSERS, OFFICIAL

OFFICIAL_PREFIX = "Hunyuan_video_I2V_lora_"

_PREFIXES = (
    OFFICIAL_PREFIX,
    "base_model.model.",
    *("transformer.", "diffusion_model.", "model.", "module.", "unet.", "dit."),
    *("lora_unet_", "lora_transformer_", "lora_dit_", "lycoris_", "lora_"),
    *("transformer_", "diffusion_model_", "unet_"),
)
#: Characters of a key; matching takes the square of them.
_LONGEST = 500
#: Layers of text encoders, by the beginning of their names.
_TEXT_ENCODER = re.compile(
    r"(?:base_model\.model\.|module\.)?"
    r"(?:lora_te\d?_|lycoris_te\d?_|lora_text_encoder|text_encoders?(?:_\d+)?[._]|te\d?[._]|text_model[._]|llm\.|clip(?:_[lg])?\.)"
)
_PAIR = re.compile(
    r"(?P<layer>.+?)[._]lora[._](?P<kind>A|B|down|up)(?:\.(?P<adapter>[^.]+?))??(?:\.(?P<what>weight|bias))?"
)
_MAGNITUDE = re.compile(r"(?P<layer>.+)\.lora_magnitude_vector(?:\.(?P<adapter>[^.]+?))??(?:\.weight)?")
_SAVED = re.compile(
    r"(?P<layer>.+?)(?:\.modules_to_save(?:\.(?P<adapter>[^.]+?))??|\.base_layer)?\.(?P<what>weight|scale|bias)"
)
#: What the last segment of a key holds; "lokr_w1" and the like keep their names.
_LAST = {
    "alpha": "alpha",
    "dora_scale": "magnitude",
    "diff": "diff",
    "diff_b": "diff_b",
    "w_norm": "diff",
    "b_norm": "diff_b",
    **{f"hada_w{i}_{x}": f"hada_w{i}_{x}" for i in "12" for x in "ab"},
    **{f"lokr_w{i}{x}": f"lokr_w{i}{x}" for i in "12" for x in ("", "_a", "_b")},
}
#: Parts of keys of methods that aren't supported, and their names.
_UNSUPPORTED = {
    "lora_mid": "LoCon with a Tucker decomposition",
    "hada_t1": "LoHa with a Tucker decomposition",
    "hada_t2": "LoHa with a Tucker decomposition",
    "lokr_t2": "LoKr with a Tucker decomposition",
    "oft_blocks": "OFT",
    "oft_diag": "OFT",
    "oft_R": "OFT",
    "boft_R": "BOFT",
    "boft_s": "BOFT",
    "on_input": "IA3",
    "ia3_l": "IA3",
    "vera_lambda_b": "VeRA",
    "vera_lambda_d": "VeRA",
    "lora_embedding_A": "a LoRA of an embedding",
    "lora_embedding_B": "a LoRA of an embedding",
    "a1": "GLoRA",
    "set_weight": "weights to replace those of the model (set_weight)",
    "reshape_weight": "weights of another shape (reshape_weight)",
}


@dataclass(frozen=True)
class Part:
    """What one key holds: `kind` of a layer, for the adapter of a name where the file has names."""

    layer: str
    kind: str
    adapter: str | None = None


@dataclass(frozen=True)
class Target:
    """Rows `start` to `start + rows` of a layer of ours; `swap` says that their two halves are exchanged."""

    layer: str
    start: int
    rows: int
    swap: bool = False


def parse(key: str) -> Part | None:
    """Return what a key holds; None if it is nothing that LoRA files have.

    Kinds are down, up, up_bias, alpha, magnitude (DoRA), hada_* (LoHa), lokr_* (LoKr), diff and diff_b (added to weight
    and bias), weight and bias (the trained values themselves).
    """
    if len(key) > _LONGEST:
        return None
    if found := _MAGNITUDE.fullmatch(key):
        return Part(_bare(found["layer"]), "magnitude", found["adapter"])
    if found := _PAIR.fullmatch(key):
        kind = "down" if found["kind"] in ("A", "down") else "up"
        kind = f"{kind}_bias" if found["what"] == "bias" else kind
        return None if kind == "down_bias" else Part(_bare(found["layer"]), kind, found["adapter"])
    layer, _, last = key.rpartition(".")
    if layer and last in _LAST:
        return Part(_bare(layer), _LAST[last])
    if found := _SAVED.fullmatch(key):
        return Part(_bare(found["layer"]), "bias" if found["what"] == "bias" else "weight", found["adapter"])
    return None


def _bare(layer: str) -> str:
    """A layer's name without what training wrappers insert."""
    return ".".join(part for part in layer.split(".") if part not in ("base_layer", "processor"))


def unsupported(key: str) -> str | None:
    """Return the name of the method that a key belongs to, if it is one that isn't supported."""
    return next((_UNSUPPORTED[part] for part in key.split(".") if part in _UNSUPPORTED), None)


def is_text_encoder(key: str) -> bool:
    """Return whether a key belongs to a text encoder and not to the DiT."""
    return _TEXT_ENCODER.match(key) is not None


def resolve(name: str, targets: Mapping[str, Target]) -> tuple[str, Target | None]:
    """Find a layer by its name in a file, behind any of the usual prefixes; its name without them, and the layer."""
    while name not in targets:
        prefix = next((one for one in _PREFIXES if name.startswith(one)), None)
        if prefix is None:
            return name, None
        name = name.removeprefix(prefix)
    return name, targets[name]


def layers(dit: DiT) -> dict[str, Target]:
    """Return every layer of a DiT that has weights, under all names that files use for it."""
    found: dict[str, Target] = {}
    for layer, module in dit.named_modules():
        weight = getattr(module, "weight", None)
        if not isinstance(weight, nn.Parameter):
            continue
        for table in (OFFICIAL, COMFYUI, DIFFUSERS):
            if (source := table.source(f"{layer}.weight")) is None:
                continue
            start = 0
            for index, key in enumerate(source.keys):
                last = index == len(source.keys) - 1
                rows = len(weight) - start if last else dit.width
                target = Target(layer, start, rows, source.swap)
                name = key.removesuffix(".weight").removesuffix(".scale")
                found[name] = found[name.replace(".", "_")] = target
                start += rows
    return found
