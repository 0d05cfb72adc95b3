"""Draw a caption text from a structured caption: fields are left out and permuted at random.

The paper (arXiv 2412.03603, section 3.2) drops and permutes fields so that one clip has captions of different length
and pattern; it publishes no probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hy_core.errors import UsageError
from hy_core.tables import bounded

from hy_data.captions.schema import FIELDS, StructuredCaption

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class RenderOptions:
    """Probabilities of `render`, each in 0 to 1.

    `short` and `dense`: that the caption is this one description alone; their sum is at most 1. Otherwise each
    description is there with `keep_description` (at least one always is) and each other field with `keep`. `permute`:
    that the order is random, else it is that of the schema. `label`: that fields are named ("Style: ..."). `tags`: that
    the tags are appended.
    """

    short: float = bounded(0.15, 0, 1)
    dense: float = bounded(0.15, 0, 1)
    keep_description: float = bounded(0.7, 0, 1)
    keep: float = bounded(0.5, 0, 1)
    permute: float = bounded(0.5, 0, 1)
    label: float = bounded(0.5, 0, 1)
    tags: float = bounded(0.1, 0, 1)

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"captions: {name} = {getattr(self, name)!r} is not between 0 and 1")
        if self.short + self.dense > 1:
            raise UsageError(f"captions: short + dense = {self.short + self.dense:g} is over 1")


def render(caption: StructuredCaption, rng: np.random.Generator, options: RenderOptions | None = None) -> str:
    """Return one caption text; equal for equal caption, options and state of `rng`.

    It always takes the same number of draws from `rng`, so that one caption doesn't shift those of the next clips.
    """
    options = options or RenderOptions()
    kind, is_permuted, is_labelled, has_tags, which = rng.random(5)
    kept = dict(zip(FIELDS, rng.random(len(FIELDS)), strict=True))
    order = rng.permutation(len(FIELDS))
    if kind < options.short:
        return caption.sentence("short_description")
    if kind < options.short + options.dense and caption.dense_description:
        return caption.sentence("dense_description")
    names = [FIELDS[index] for index in order] if is_permuted < options.permute else list(FIELDS)
    descriptions = [n for n in ("short_description", "dense_description") if getattr(caption, n)]
    chosen = [n for n in descriptions if kept[n] < options.keep_description]
    if not chosen:
        chosen = [descriptions[int(which * len(descriptions))]]
    chosen += [n for n in FIELDS[2:] if getattr(caption, n) and kept[n] < options.keep]
    label = is_labelled < options.label
    parts = [caption.sentence(name, label) for name in names if name in chosen]
    if caption.tags and has_tags < options.tags:
        parts.append(", ".join(f"{name}: {text}" for name, text in caption.tags.items()) + ".")
    return " ".join(parts)
