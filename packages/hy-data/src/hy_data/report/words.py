"""Text of files, captions and errors, made safe to show."""

from __future__ import annotations

from typing import Any

from hy_core.shell import visible


def shown(value: Any, most: int = 160) -> str:
    """Return a value as one line of at most `most` characters, without those that move a cursor or reorder text."""
    text = "" if value is None else str(value)
    text = " ".join("".join(char if visible(char) else " " for char in text[: 4 * most]).split())
    return text if len(text) <= most else text[: most - 1] + "…"


def end(value: Any, most: int) -> str:
    """Return the end of a value such as a path, as `shown` does."""
    text = shown(value, 1 << 12)
    return text if len(text) <= most else "…" + text[1 - most :]
