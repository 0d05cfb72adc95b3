"""Keys of cached tensors: hashes of all that they depend on, contents instead of names."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from hy_core.errors import MissingError
from hy_core.models import fingerprint

VERSION = 1
"""Raised when the same clip and weights give other latents or features."""
_TEXT_FOLDERS = (
    "llm",
    "clip",
    "text_encoder",
    "text_encoder_2",
    "tokenizer",
    "tokenizer_2",
    "text_encoder_i2v",
)
_TEXT_FILES = (".json", ".jinja", ".txt", ".model")


def text_key(text: str, is_picture: bool, encoders: str, dtype: str) -> str:
    """Return the key of a text's features; models have another template for pictures."""
    return cache_key(["text", text, is_picture, encoders, dtype])


def encoders_fingerprint(folder: Path) -> str:
    """Return a hash of a model's text encoders, tokenizers and templates; `MissingError` if it has none."""
    facts = []
    for name in _TEXT_FOLDERS:
        part = folder / name
        if part.is_dir():
            facts.append([name, fingerprint(part)])
            files = sorted(one for one in part.iterdir() if one.suffix in _TEXT_FILES and one.is_file())
            facts += [[name, one.name, hashlib.sha256(one.read_bytes()).hexdigest()] for one in files]
    if not facts:
        raise MissingError(f"no text encoders in {folder}")
    return cache_key(facts)


def cache_key(facts: Any) -> str:
    """Return a key, 32 hex digits, of facts that are plain JSON values."""
    text = json.dumps([VERSION, facts], ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
