"""What training draws from: clips that come with words and with the truth about them."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np


class Clip(Protocol):
    """One clip, known before it is drawn."""

    def pixels(self) -> np.ndarray:
        """Draw it: uint8 [T, H, W, 3]."""
        ...

    def ground(self) -> np.ndarray:
        """Draw the empty background: [H, W, 3] in 0..255."""
        ...

    def caption(self, rng: np.random.Generator) -> str:
        """Draw words for it."""
        ...

    def truth(self) -> dict[str, Any]:
        """Tell what there is to know of it, for plugins that learn from it: see the source's own page."""
        ...


class Source(Protocol):
    """A dataset, registered by `register_datasets`, that a recipe can name as `data.source`."""

    def clip(
        self,
        rng: np.random.Generator,
        split: str,
        frames: int,
        height: int,
        width: int,
        things: int | None = None,
    ) -> Clip:
        """Draw a clip of a split ("train", "heldout"); `things` is how many it shows, None leaves it open."""
        ...
