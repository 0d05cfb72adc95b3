"""Encode prompts for the DiT: a language model's token states and CLIP's pooled vector."""

from __future__ import annotations

from hy_core.text.clip import Clip
from hy_core.text.encoder import Encoded, TextEncoder
from hy_core.text.llm import Llm
from hy_core.text.template import OFFICIAL, OFFICIAL_I2V, Template, Templates

__all__ = ["OFFICIAL", "OFFICIAL_I2V", "Clip", "Encoded", "Llm", "Template", "TextEncoder", "Templates"]
