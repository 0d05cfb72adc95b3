"""Clips with sound for training, from a dataset that a plugin registered.

A dataset is made with (length, seed=, split=, block=) and the table `data.clips` of the recipe. Its items have `pixels`
(a function that gives uint8 [T, H, W, 3]), `fps`, `sound` (float32 [N]) at `rate` Hz, as long as the frames, and
`caption`; `block` neighbours last equally long. An item depends on the seed and the index alone. `world-sound` of
hy-world is one, `hy_audio.training.clips` another, of your own files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from hy_core.errors import HyError, UsageError
from hy_core.training import Objective, Recipe, seeded
from hy_core.plugins import Plugins
from torch import Tensor

ENDLESS = 1 << 40
"""Clips that are asked for: as many as a run may ever see, none of them twice but by chance."""

MEASURING = 1 << 20
"""A rank that no process has: its batches are for measuring the training set."""


class Clips(Protocol):
    """A dataset of clips with sound."""

    def __getitem__(self, index: int) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class ClipData:
    """Where clips come from: a dataset by its name, of a plugin of the recipe, with a table of its own.

    `batches` is how many different ones are drawn, and kept in memory to come again; 0 is a new one at each step.
    """

    source: str = "world-sound"
    clips: dict[str, Any] = field(default_factory=dict)
    batches: int = 0


def open_clips(recipe: Recipe, data: ClipData, heldout: bool = False, block: int = 1) -> Clips:
    """The dataset of a recipe. UsageError if there is none of that name, or if it doesn't take what is asked."""
    plugins = Plugins()
    plugins.load(*recipe.plugins)
    make = plugins.datasets().pick(data.source)
    own = {
        "seed": seeded(recipe.seed, 10 + heldout),
        "split": "heldout" if heldout else "train",
        "block": block,
    }
    try:
        return make(ENDLESS, **{**own, **data.clips})
    except TypeError as error:
        raise UsageError(f"data.source = {data.source!r}: {error}", "see [data.clips]") from None


def waveforms(items: Iterable[Mapping[str, Any]], rate: int, count: int, rng: np.random.Generator) -> Tensor:
    """`count` samples of each item's sound at `rate`, from a random moment on; shorter ones end in silence.

    Returns float32 [items, count].
    """
    rows = []
    for item in items:
        wave = resampled(item, rate)
        start = int(rng.integers(max(len(wave) - count, 0) + 1))
        part = wave[start : start + count]
        rows.append(np.pad(part, (0, count - len(part))))
    return torch.from_numpy(np.stack(rows))


def resampled(item: Mapping[str, Any], rate: int) -> np.ndarray:
    """The sound of an item at `rate`, float32 [N]."""
    try:
        wave = np.asarray(item["sound"], np.float32)
    except KeyError:
        raise HyError("the clips of this dataset have no sound", "choose another data.source") from None
    if item["rate"] == rate:
        return wave
    import soxr

    return soxr.resample(wave, item["rate"], rate)


class ClipObjective(Objective):
    """An objective that learns from batches of clips: a subclass says how one is drawn, and sets `data`."""

    data: ClipData

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        super().__init__(recipe, folder)
        self.kept: dict[int, Any] = {}

    def draw(self, number: int) -> Any:
        """Make the batch of this number, up to 63 bits."""
        raise NotImplementedError

    def batch(self, step: int, rank: int = 0, ranks: int = 1) -> Any:
        number = seeded(self.recipe.seed, 0, step, rank)
        if not self.data.batches:
            return self.draw(number)
        number %= self.data.batches
        if number not in self.kept:
            self.kept[number] = self.draw(number)
        return self.kept[number]


class SoundObjective(ClipObjective):
    """An objective that learns from waveforms alone: batches [B,T], and held-out ones."""

    def open_datasets(self, data: ClipData, rate: int, seconds: float) -> None:
        """Open the clips of a recipe's `data`, of which `seconds` are heard at `rate`."""
        self.clips, self.heldout = (open_clips(self.recipe, data, heldout) for heldout in (False, True))
        self.rate, self.count = rate, round(seconds * rate)

    def draw(self, number: int) -> Tensor:
        """Waveforms [B,T]."""
        rng = np.random.default_rng((self.recipe.seed, number))
        items = (self.clips[int(i)] for i in rng.integers(ENDLESS, size=self.recipe.batch))
        return waveforms(items, self.rate, self.count, rng)

    def heldout_waveforms(self, clips: int) -> Tensor:
        """Waveforms [clips,T] that training never hears, the same each time."""
        rng = np.random.default_rng(seeded(self.recipe.seed, 2))
        return waveforms((self.heldout[i] for i in range(clips)), self.rate, self.count, rng)
