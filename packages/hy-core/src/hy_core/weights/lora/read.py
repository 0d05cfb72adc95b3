"""Read a LoRA file: its tensors by layer and kind, and the strength that it states."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from hy_core.errors import HyError
from hy_core.weights.files import find, open_checkpoint
from hy_core.weights.lora.names import OFFICIAL_PREFIX, Part, is_text_encoder, parse, unsupported
from hy_core.weights.lora.strength import Strength, stated

_LOW_RANK = ("down", "up", "hada_", "lokr_", "diff", "magnitude")


@dataclass(frozen=True)
class LoraFile:
    """A LoRA file: `layers` holds, by the layer's name in the file, its tensors by kind (see `names.parse`)."""

    path: Path
    layers: dict[str, dict[str, Tensor]]
    strength: Strength = field(default_factory=Strength)


def read(path: str | Path) -> LoraFile:
    """Read a LoRA file in any of the usual spellings.

    What it holds for a text encoder is left out, with a warning. In the official files `alpha` is left out too, as the
    official code ignores it. Raises HyError for a file that is no LoRA, that holds several adapters, or that is of a
    method that isn't supported, which is named.
    """
    file = find(Path(path))
    checkpoint = open_checkpoint(file)
    tensors = dict(checkpoint.tensors)
    notes = dict(checkpoint.metadata)
    for key in [key for key in tensors if "." not in key and tensors[key].numel() == 1]:
        notes.setdefault(key, str(tensors.pop(key).item()))  # lora_alpha, rank, counters
    text = [key for key in tensors if is_text_encoder(key)]
    for key in text:
        del tensors[key]
    if text and not tensors:
        raise HyError(f"{path} adapts only a text encoder ({text[0][:100]})", "hy adapts the DiT")
    parts = {key: _parse(key, path) for key in tensors}
    if not any(part.kind.startswith(_LOW_RANK) for part in parts.values()):
        key = min(parts, default="")
        raise HyError(
            f"{path} is no LoRA: it {f'has {key[:100]}' if key else 'is empty'}",
            "for a whole network use --weights",
        )
    if len(adapters := sorted({part.adapter for part in parts.values() if part.adapter})) > 1:
        raise HyError(
            f"{path} holds {len(adapters)} adapters ({', '.join(adapters[:3])[:100]})", "save one of them"
        )
    if text:
        warnings.warn(f"{path}: {len(text)} tensors for a text encoder are left out", stacklevel=3)
    layers: dict[str, dict[str, Tensor]] = {}
    for key, part in parts.items():
        layer = layers.setdefault(part.layer, {})
        if part.kind in layer:
            raise HyError(f"{path} has {part.kind} of {part.layer[:100]} twice", "the file was saved broken")
        layer[part.kind] = tensors[key]
    if any(key.startswith(OFFICIAL_PREFIX) for key in tensors):
        for layer in layers.values():
            layer.pop("alpha", None)
        return LoraFile(file, layers)
    peft = any("lora_A" in key for key in tensors)
    return LoraFile(file, layers, stated(file, notes, peft))


def _parse(key: str, path: str | Path) -> Part:
    if method := unsupported(key):
        raise HyError(
            f"{path} holds {method} ({key[:100]}), which isn't supported", "LoRA, DoRA, LoHa and LoKr are"
        )
    if (part := parse(key)) is None:
        raise HyError(f"{path} is no LoRA: it has {key[:100]}", "for a whole network use --weights")
    return part
