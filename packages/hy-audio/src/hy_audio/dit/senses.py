"""How a model sees and reads: the encoders in its folder, or small features that need none.

A folder holds `t5/` or `llm/` (a language model of the core's pocket layout) for words, or an `audio.json` that says
which of the core's models has that language model; for pictures `clip/`, or an `audio.json` that says what the small
features are.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hy_core import models
from hy_core.errors import HyError, MissingError
from hy_core.tables import from_table
from torch import Tensor

from hy_audio.dit.config import AudioDiTConfig
from hy_audio.encoders.pixels import Pixels
from hy_audio.encoders.text import LlmEncoder, T5Encoder
from hy_audio.encoders.vision import VisionEncoder

STATED = "audio.json"


@dataclass(frozen=True)
class Eye:
    """How features come from pictures: frames a second, what is kept of one, and the features [n,D] of many."""

    fps: float
    prepare: Callable[[np.ndarray], Any]
    encode: Callable[[Sequence[Any]], Tensor]


@dataclass(frozen=True)
class Small:
    """Pictures without an encoder: `hy_audio.encoders.pixels`, and how often timing features are taken."""

    colours: int = 8
    motion: int = 16
    sync_rate: float = 25.0


@dataclass(frozen=True)
class Stated:
    """What `audio.json` says of a model.

    Its longest window in seconds, its schedule's shift, and the steps and the guidance that it is sampled with where
    the user asks for none. `pixels` are its pictures without an encoder. `words` names the core's model whose language
    model reads for it, and `words_hash` is the fingerprint of the one that it learned with.
    """

    seconds: float = 8.0
    shift: float = 1.0
    steps: int = 50
    scale: float = 4.5
    pixels: Small | None = None
    words: str | None = None
    words_hash: str | None = None

    @classmethod
    def read(cls, folder: Path) -> Stated:
        """The file of a folder, or the defaults where there is none; one-line errors for what doesn't fit."""
        path = folder / STATED
        if not path.is_file():
            return cls()
        try:
            table = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise HyError(f"{path} is not JSON: {error}", "copy or fetch it again") from None
        if not isinstance(table, dict):
            raise HyError(f"{path} holds no JSON object", "copy or fetch it again")
        stated = from_table(cls, table, str(path))
        if not 0 < stated.seconds <= 600 or not 0 < stated.shift <= 1000:
            raise HyError(
                f"{path}: no model has windows of {stated.seconds:g} s and a shift of {stated.shift:g}"
            )
        if not 0 < stated.steps <= 1000 or not 0 <= stated.scale <= 1000:
            raise HyError(
                f"{path}: {stated.steps} steps at a guidance of {stated.scale:g}",
                "1 to 1000 steps, a guidance of 0 to 1000",
            )
        if (small := stated.pixels) and not (
            0 < small.colours <= 256 and 0 < small.motion <= 256 and 0 < small.sync_rate <= 240
        ):
            raise HyError(f"{path}: the pixels are out of range", "1 to 256, at up to 240 a second")
        return stated

    def write(self, folder: Path) -> None:
        """Write `audio.json`."""
        table = {name: value for name, value in asdict(self).items() if value is not None}
        (folder / STATED).write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


def eyes(
    folder: Path, config: AudioDiTConfig, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> dict[str, Eye]:
    """What the model of a folder sees with, "visual" and perhaps "sync"; HyError if it isn't what it learned with."""
    small = Stated.read(folder).pixels
    if small is None:
        vision = VisionEncoder.load(folder / "clip", device, dtype)

        def encode(pictures: Sequence[Any]) -> Tensor:
            return vision.encode(np.stack(pictures))

        return {"visual": Eye(config.visual_rate, vision.preparation.fit_picture, encode)}
    pixels = Pixels(small.colours, small.motion)
    if pixels.size != config.visual_dim or config.sync_dim not in (0, pixels.size):
        raise HyError(
            f"the pixels of {folder} have {pixels.size} numbers, but the network reads {config.visual_dim} "
            f"(and {config.sync_dim} for timing)",
            "set visual_dim, and sync_dim or 0, to what the pixels have",
        )
    found = {"visual": Eye(config.visual_rate, pixels.prepare, pixels.encode)}
    if config.sync_dim:
        found["sync"] = Eye(small.sync_rate, pixels.prepare, pixels.encode)
    return found


def reader(
    folder: Path, config: AudioDiTConfig, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> T5Encoder | LlmEncoder:
    """What the model of a folder reads with; HyError if it isn't what it learned with, or there is nothing."""
    name = next((name for name in ("t5", "llm") if (folder / name).is_dir()), None)
    words = folder / name if name else _words(folder)
    found = (T5Encoder if name == "t5" else LlmEncoder).load(words, device, dtype)
    if found.width != config.text_dim:
        raise HyError(
            f"{words} reads words as {found.width} numbers, but the network of {folder} takes {config.text_dim}",
            "set text_dim to what they have",
        )
    return found


def _words(folder: Path) -> Path:
    """The language model of the core's model that `audio.json` names."""
    stated = Stated.read(folder)
    if not stated.words:
        raise MissingError(f"no text encoder in {folder}", f"it needs t5/, llm/, or words in {STATED}")
    try:
        found = language_model(stated.words)
    except MissingError as error:
        raise MissingError(f"what {folder / STATED} reads words with: {error.message}", error.hint) from None
    if stated.words_hash not in (None, models.fingerprint(found)):
        raise HyError(
            f"the language model of {stated.words!r} is another than {folder} learned with",
            "take the version of hy-core that belongs to it",
        )
    return found


def language_model(name: str) -> Path:
    """The folder of the language model of one of the core's models, in the pocket layout; MissingError if none."""
    found = models.find(name).folder / "llm"
    if not found.is_dir():
        raise MissingError(f"the model {name!r} has no llm/", "take one of the pocket layout")
    return found


def assemble(folder: Path, stated: Stated, parts: dict[str, Path]) -> None:
    """Put a model's folder together, but for network and codec: `parts` are the folders to copy, by their new names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in parts.items():
        if not source.is_dir():
            raise MissingError(f"no such folder: {source}", f"it should hold the model's {name}")
        shutil.copytree(source, folder / name, dirs_exist_ok=True)
    stated.write(folder)
