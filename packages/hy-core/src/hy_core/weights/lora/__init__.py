"""Low-rank weights (LoRA and its relatives): read a file in any usual spelling, add it to a DiT, write it."""

from __future__ import annotations

from hy_core.weights.lora.merge import merge
from hy_core.weights.lora.names import OFFICIAL_PREFIX
from hy_core.weights.lora.read import LoraFile, read
from hy_core.weights.lora.trained import save_adapter
from hy_core.weights.lora.write import SPELLINGS, can_write, write

__all__ = [
    "OFFICIAL_PREFIX",
    "SPELLINGS",
    "LoraFile",
    "can_write",
    "merge",
    "read",
    "save_adapter",
    "write",
]
