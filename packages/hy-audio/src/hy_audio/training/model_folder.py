"""Put the folder of a tri-stream model together."""

from __future__ import annotations

import shutil
from pathlib import Path

from hy_core.errors import MissingError

from hy_audio.dit.model_config import AudioModelConfig


def write_model_folder(folder: Path, model_config: AudioModelConfig, parts: dict[str, Path]) -> None:
    """Write `audio.json` and copy folders into a model's folder: `parts` are their sources by their new names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in parts.items():
        if not source.is_dir():
            raise MissingError(f"no such folder: {source}", f"it should hold the model's {name}")
        shutil.copytree(source, folder / name, dirs_exist_ok=True)
    model_config.write(folder)
