"""How strongly a LoRA file counts: `alpha` of its layers, from wherever its trainer wrote it.

A layer counts alpha / rank, or alpha / sqrt(rank) where the file says that it is rank-stabilised (rsLoRA,
arXiv:2312.03732). Trainers write alpha as a tensor beside each layer (kohya), in the header of the safetensors file
(diffusers: `lora_adapter_metadata`; SimpleTuner: `transformer.lora_alpha`), as plain values in the file, or in an
`adapter_config.json` beside it (PEFT). Without any, a layer counts 1.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hy_core.errors import HyError

_COMPONENT = re.compile(
    r"(?:transformer|unet|dit|diffusion_model|base_model\.model|base_model|model|network|lora)\."
)
_CONFIG_BYTES = 4 << 20


@dataclass(frozen=True)
class Strength:
    """The strength that a file states for all of its layers, or for those whose names match a pattern."""

    alpha: float | None = None
    patterns: tuple[tuple[re.Pattern[str], float], ...] = ()
    rank_stabilized: bool = False

    def factor(self, layer: str, rank: int, alpha: float | None) -> float:
        """Return what a layer of this rank is multiplied by; `alpha` is the layer's own, which goes first."""
        if alpha is not None:
            return alpha / rank
        alpha = next((value for pattern, value in self.patterns if pattern.fullmatch(layer)), self.alpha)
        if alpha is None:
            return 1.0
        return alpha / (math.sqrt(rank) if self.rank_stabilized else rank)


def stated(path: Path, metadata: Mapping[str, str], peft: bool) -> Strength:
    """Return the strength that a file's metadata states, or else the adapter_config.json beside a PEFT file.

    `peft` says that the file's keys are PEFT's (`lora_A`, `lora_B`). Raises HyError for a value that can't be read.
    """
    config, where = _header(metadata, path), f"{path}"
    beside = path.parent / "adapter_config.json"
    if not config and peft and beside.is_file():
        config, where = _beside(beside), f"{beside}"
    alpha = config.get("lora_alpha")
    if alpha is None and ("r" in config or "rank" in config):
        alpha = config.get("alpha", config.get("network_alpha"))
    patterns = config.get("alpha_pattern") or {}
    if not isinstance(patterns, Mapping):
        raise HyError(
            f"{where}: alpha_pattern is {str(patterns)[:60]!r}", "expected names of layers with numbers"
        )
    return Strength(
        None if alpha is None else _number(alpha, f"{where}: lora_alpha"),
        tuple(
            (_pattern(key, where), _number(value, f"{where}: alpha_pattern"))
            for key, value in patterns.items()
        ),
        str(config.get("use_rslora", False)).lower() in ("true", "1"),
    )


def _header(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    """What a file's metadata says of the DiT's adapter, without the component's name before each key."""
    found: dict[str, Any] = dict(metadata)
    if text := metadata.get("lora_adapter_metadata"):
        inner = _json(text)
        if not isinstance(inner, dict):
            raise HyError(f"{path}: its lora_adapter_metadata is no JSON object", "the file was saved broken")
        nested = inner.get("transformer")
        found = dict(nested) if isinstance(nested, dict) else inner
    config: dict[str, Any] = {}
    for key, value in found.items():
        name = _COMPONENT.sub("", str(key), count=1)
        if "." in name or name not in _KEYS or (name in config and name == key):
            continue
        config[name] = _json(value) if isinstance(value, str) and name != "lora_alpha" else value
    return config


_KEYS = {"lora_alpha", "alpha", "network_alpha", "r", "rank", "use_rslora", "alpha_pattern", "rank_pattern"}


def _beside(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _CONFIG_BYTES:
            raise HyError(f"{path} has {path.stat().st_size:,} bytes", "expected a small JSON file")
        found = _json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeError) as error:
        raise HyError(f"can't read {path}: {error}") from None
    if not isinstance(found, dict):
        raise HyError(f"{path} is no JSON object", "copy or fetch it again")
    return found


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _number(value: Any, where: str) -> float:
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if isinstance(value, bool) or not math.isfinite(found):
        raise HyError(f"{where} is {str(value)[:60]!r}", "expected a number")
    return found


def _pattern(text: str, where: str) -> re.Pattern[str]:
    """A pattern as PEFT reads it: a regular expression for the end of a layer's name.

    Three repetitions at most, and none of a group, so that no pattern takes long on any name.
    """
    if len(text) > 300 or len(re.findall(r"[*+?{]", text)) > 3 or re.search(r"\)[*+?{]|\\\d|\(\?", text):
        raise HyError(
            f"{where}: the pattern {text[:60]!r} isn't supported", "expected the end of a layer's name"
        )
    try:
        return re.compile(rf"(?:.*\.)?(?:{text})")
    except (re.error, OverflowError, RecursionError):
        raise HyError(f"{where}: {text[:60]!r} is no pattern", "expected the end of a layer's name") from None
