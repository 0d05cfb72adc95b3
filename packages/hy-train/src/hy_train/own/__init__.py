"""`hy train lora` and `hy train full`: from a folder of clips to a recipe, and to weights."""

from __future__ import annotations
