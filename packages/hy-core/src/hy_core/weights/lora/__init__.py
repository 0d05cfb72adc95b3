"""Low-rank weights (LoRA and its relatives): read a file in any usual spelling, add it to a DiT's weights."""

from __future__ import annotations

from hy_core.weights.lora.merge import merge
from hy_core.weights.lora.names import OFFICIAL_PREFIX
from hy_core.weights.lora.read import LoraFile, read

__all__ = ["OFFICIAL_PREFIX", "LoraFile", "merge", "read"]
