"""The models that are here by name: pocket, and the folders in $HY_MODELS."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hy_core.errors import HyError
from hy_core.models.finding import FOLDERS, POCKET, find

_WEIGHTS = (".safetensors", ".pt", ".pth", ".bin", ".gguf")


@dataclass(frozen=True)
class Shelved:
    """One model: its name for --model, how its folder is laid out, the bytes of its weights, and a remark."""

    name: str
    layout: str
    bytes: int
    detail: str
    folder: str

    @property
    def size(self) -> str:
        """The bytes for people."""
        return f"{self.bytes / 1e9:.2f} GB" if self.bytes >= 1e7 else f"{self.bytes / 1e6:.2f} MB"

    def summary(self) -> dict[str, Any]:
        """Return all fields as plain JSON types."""
        return asdict(self)


def models() -> list[Shelved]:
    """List pocket, then every folder in $HY_MODELS: one that holds no model says so. Reads no weights."""
    shelf = os.environ.get(FOLDERS)
    folders = (
        sorted(one for one in Path(shelf).iterdir() if one.is_dir()) if shelf and Path(shelf).is_dir() else []
    )
    return [_shelved("pocket", POCKET), *(_shelved(folder.name, folder) for folder in folders)]


def _shelved(name: str, folder: Path) -> Shelved:
    size = sum(
        file.stat().st_size for file in folder.rglob("*") if file.suffix in _WEIGHTS and file.is_file()
    )
    try:
        spec = find("pocket" if folder == POCKET else str(folder))
    except HyError as error:
        return Shelved(name, "none", size, error.message, str(folder))
    steps = f"{spec.defaults.width}x{spec.defaults.height}, {spec.defaults.frames} frames, {spec.defaults.steps} steps"
    return Shelved(name, spec.layout, size, steps, str(folder))
