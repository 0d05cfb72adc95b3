"""The text encoder of a tri-stream model's folder."""

from __future__ import annotations

from pathlib import Path

import torch
from hy_core import models
from hy_core.errors import HyError, MissingError

from hy_audio.dit.config import AudioDiTConfig
from hy_audio.dit.model_config import CONFIG_FILE, AudioModelConfig
from hy_audio.encoders.text import LlmEncoder, T5Encoder


def load_text_encoder(
    folder: Path, config: AudioDiTConfig, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> T5Encoder | LlmEncoder:
    """Load the text encoder of a model's folder: `t5/`, `llm/`, or the one that `audio.json` names.

    `MissingError` if there is none, `HyError` if it isn't the one of the training.
    """
    name = next((name for name in ("t5", "llm") if (folder / name).is_dir()), None)
    source = folder / name if name else _find_text_encoder(folder)
    found = (T5Encoder if name == "t5" else LlmEncoder).load(source, device, dtype)
    if found.width != config.text_dim:
        raise HyError(
            f"the text encoder of {source} has states of size {found.width}, the network of {folder} takes "
            f"{config.text_dim}",
            "set text_dim to the size of the states",
        )
    return found


def _find_text_encoder(folder: Path) -> Path:
    """Return the folder of the language model that `audio.json` names."""
    model_config = AudioModelConfig.read(folder)
    if not model_config.text_encoder:
        raise MissingError(
            f"no text encoder in {folder}", f"it needs t5/, llm/, or text_encoder in {CONFIG_FILE}"
        )
    try:
        found = language_model(model_config.text_encoder)
    except MissingError as error:
        raise MissingError(f"{folder / CONFIG_FILE}: text_encoder: {error.message}", error.hint) from None
    if model_config.text_encoder_hash not in (None, models.fingerprint(found)):
        raise HyError(
            f"the language model of {model_config.text_encoder!r} isn't the one that {folder} was trained with",
            "install the version of hy-core that belongs to it",
        )
    return found


def language_model(name: str) -> Path:
    """Return the folder of the language model of one of the core's models, of pocket's format; MissingError if none."""
    found = models.find(name).folder / "llm"
    if not found.is_dir():
        raise MissingError(f"the model {name!r} has no llm/", "name one of pocket's format")
    return found
