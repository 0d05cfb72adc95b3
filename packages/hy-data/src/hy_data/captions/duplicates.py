"""Find captions that are repeated too often, as when an endpoint answers the same to everything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Repeated:
    """A caption and the number of clips that have it."""

    text: str
    count: int


def find_repeated(captions: Iterable[str], share: float = 0.01, least: int = 5) -> tuple[Repeated, ...]:
    """Return captions that at least `least` clips and more than `share` of all clips have, the most frequent first.

    Captions are compared without case, punctuation at their ends and extra spaces; empty ones count, too.
    """
    counts: Counter[str] = Counter()
    shown: dict[str, str] = {}
    for text in captions:
        key = " ".join(text.lower().split()).strip(" .!?\"'")
        counts[key] += 1
        shown.setdefault(key, text)
    limit = max(least, share * sum(counts.values()))
    found = [
        Repeated(shown[key], count)
        for key, count in counts.items()
        if count >= least and count > limit - 1e-9
    ]
    return tuple(sorted(found, key=lambda one: (-one.count, one.text)))


def warning(repeated: Iterable[Repeated], total: int) -> str | None:
    """Return one line about repeated captions, None if there are none."""
    found = list(repeated)
    if not found:
        return None
    first = found[0]
    text = first.text if len(first.text) <= 60 else first.text[:60] + "…"
    others = f", and {len(found) - 1} other captions are repeated as often" if len(found) > 1 else ""
    return (
        f"{first.count} of {total} clips have the same caption {text!r}{others}: check the captions' source"
    )
