"""Read the option `--lora`: files and how strongly each counts. Needs no torch."""

from __future__ import annotations

import math
from pathlib import Path

from hy_core.errors import UsageError

_MAX_PARTS = 20  # of one file's name that has commas in it


def loras(text: str) -> list[tuple[Path, float]]:
    """Return the files and scales of `FILE`, `FILE=0.8`, or several with commas between.

    Names may have `=` and `,` in them: from the left, the longest text that names an existing file is taken as one.
    Raises UsageError for a scale that isn't a finite number, and for a text without a file.
    """
    parts, found = text.split(","), []
    while parts:
        for count in range(min(len(parts), _MAX_PARTS), 0, -1):
            one = _lora(",".join(parts[:count]).strip(), must_exist=count > 1)
            if one is not None or count == 1:
                found += [one] if one else []
                del parts[:count]
                break
    if not found:
        raise UsageError("--lora: names no file")
    return found


def _lora(text: str, must_exist: bool) -> tuple[Path, float] | None:
    """Read `FILE` or `FILE=0.8`; None for an empty text, and with `must_exist` for a file that isn't there."""
    if not text:
        return None
    if _exists(text):
        return Path(text), 1.0
    name, equals, number = text.rpartition("=")
    if must_exist and not (equals and _exists(name)):
        return None
    if not equals:
        return Path(text), 1.0
    try:
        scale = float(number)
    except ValueError:
        if must_exist:
            return None
        scale = math.nan
    if not math.isfinite(scale):
        raise UsageError(f"--lora: {text[:200]!r} is not like effect.safetensors=0.8")
    return Path(name), scale


def _exists(name: str) -> bool:
    try:
        return Path(name).exists()
    except (OSError, ValueError):  # a name too long, or with a NUL in it
        return False
