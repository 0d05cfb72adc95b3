"""Pairs of a prompt and its structured caption, for fine-tuning a rewriter: read from a file, or made from captions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hy_core.errors import HyError, UsageError
from hy_core.files import read_text

from hy_data.captions.schema import CaptionError, StructuredCaption

_MOST = 64 << 20  # bytes of a file
_OPENINGS = ("", "", "a video of ", "show me ", "please make a clip of ", "i want to see ")


@dataclass(frozen=True)
class Pair:
    """What a person asks for, and the caption that a model gets instead."""

    prompt: str
    caption: StructuredCaption


def read_pairs(path: Path) -> list[Pair]:
    """Read JSON lines with `prompt` (a text) and `caption` (a structured caption). `UsageError` names a wrong line."""
    pairs = []
    for number, line in enumerate(read_text(path, _MOST).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            prompt, caption = row["prompt"], StructuredCaption.from_json(row["caption"])
        except (ValueError, KeyError, TypeError, RecursionError, CaptionError) as error:
            raise UsageError(
                f"{path}: line {number} is no pair: {str(error)[:100]}", '{"prompt": "...", "caption": {...}}'
            ) from None
        if not isinstance(prompt, str) or not prompt.strip():
            raise UsageError(f"{path}: line {number} has no prompt")
        pairs.append(Pair(prompt, caption))
    if not pairs:
        raise HyError(f"{path} holds no pairs", "hy data pairs makes them from captions")
    return pairs


def make_pairs(captions: Iterable[StructuredCaption], seed: int = 0) -> Iterator[Pair]:
    """Make a pair of each caption: its short description, as people type prompts, and itself."""
    rng = np.random.default_rng(seed)
    for caption in captions:
        text = caption.short_description.strip().rstrip(".!?。")
        text = text[:1].lower() + text[1:] if rng.random() < 0.7 else text
        if caption.style and rng.random() < 0.3:
            text += f", {caption.style.rstrip('.').lower()}"
        yield Pair(_OPENINGS[int(rng.integers(len(_OPENINGS)))] + text, caption)


def to_json(pair: Pair) -> str:
    """Return a pair as a line of the file that `read_pairs` reads."""
    return json.dumps({"prompt": pair.prompt, "caption": pair.caption.to_json()}, ensure_ascii=False)
