"""Clips with sound for training: the sources of a recipe, their waveforms, and objectives that learn from them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from hy_core.data import Clip, DataSource, SourceSpec, open_source
from hy_core.errors import HyError, UsageError
from hy_core.plugins import Plugins
from hy_core.training import Objective, Recipe, seeded
from torch import Tensor

BatchT = TypeVar("BatchT")

MEASURING = 1 << 20
"""A rank that no process has: its batches are for measuring the training set."""


@dataclass(frozen=True)
class ClipData:
    """Where clips come from: `clips` of the source of a name, with a table of its own in `[data.sources.NAME]`.

    `height` and `width` are those of a procedural source's pictures. `batches` is how many different batches are drawn,
    and kept in memory to come again; 0 is a new one at each step.
    """

    source: str = "world-sound"
    sources: dict[str, Any] = field(default_factory=dict)
    clips: int = 1 << 20
    height: int = 64
    width: int = 64
    batches: int = 0


def open_clips(recipe: Recipe, data: ClipData, heldout: bool = False, group: int = 1) -> DataSource:
    """Open the source of a recipe; `group` neighbours last equally long. `UsageError` if it doesn't fit the recipe."""
    plugins = Plugins()
    plugins.load(*recipe.plugins)
    spec = SourceSpec(
        data.source,
        "heldout" if heldout else "train",
        seeded(recipe.seed, 10 + heldout),
        data.clips,
        height=data.height,
        width=data.width,
        group=group,
        options=data.sources.get(data.source, {}),
    )
    found = open_source(spec, plugins)
    if unused := sorted(set(data.sources) - {data.source}):
        raise UsageError(
            f"[data.sources.{unused[0]}]: no clips of this recipe come from {unused[0]!r}",
            f"it uses {data.source}",
        )
    return found


def waveforms(clips: Iterable[Clip], rate: int, count: int, rng: np.random.Generator) -> Tensor:
    """`count` samples of each clip's sound at `rate`, from a random moment on; shorter ones end in silence.

    Returns float32 [clips, count].
    """
    rows = []
    for clip in clips:
        wave = resampled(clip, rate)
        start = int(rng.integers(max(len(wave) - count, 0) + 1))
        part = wave[start : start + count]
        rows.append(np.pad(part, (0, count - len(part))))
    return torch.from_numpy(np.stack(rows))


def resampled(clip: Clip, rate: int) -> np.ndarray:
    """The sound of a clip at `rate`, mono, float32 [N]; `HyError` if it has none."""
    sound = clip.sound()
    if sound is None:
        raise HyError("the clips of this source have no sound", "choose another data.source")
    wave: np.ndarray = np.asarray(sound.samples, np.float32).mean(0)
    if sound.rate == rate:
        return wave
    import soxr

    found: np.ndarray = soxr.resample(wave, sound.rate, rate)
    return found


class ClipObjective(Objective[BatchT]):
    """An objective that learns from batches of clips: a subclass says how one is drawn, and sets `data`."""

    data: ClipData

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        super().__init__(recipe, folder)
        self.kept: dict[int, BatchT] = {}

    def draw(self, number: int) -> BatchT:
        """Make the batch of this number, up to 63 bits."""
        raise NotImplementedError

    def batch(self, step: int, rank: int = 0, ranks: int = 1) -> BatchT:
        """Return the batch of a step: a new one, or one of `data.batches`."""
        number = seeded(self.recipe.seed, 0, step, rank)
        if not self.data.batches:
            return self.draw(number)
        number %= self.data.batches
        if number not in self.kept:
            self.kept[number] = self.draw(number)
        return self.kept[number]


class SoundObjective(ClipObjective[BatchT]):
    """An objective that learns from waveforms alone."""

    def open_datasets(self, data: ClipData, rate: int, seconds: float) -> None:
        """Open the clips of a recipe's `data`, of which `seconds` are heard at `rate`."""
        self.clips, self.heldout = (open_clips(self.recipe, data, heldout) for heldout in (False, True))
        self.rate, self.count = rate, round(seconds * rate)

    def draw_waveforms(self, number: int) -> Tensor:
        """Draw the waveforms [B, T] of a number."""
        rng = np.random.default_rng((self.recipe.seed, number))
        clips = (self.clips[int(i)] for i in rng.integers(len(self.clips), size=self.recipe.batch))
        return waveforms(clips, self.rate, self.count, rng)

    def heldout_waveforms(self, clips: int) -> Tensor:
        """Waveforms [clips,T] that training never hears, the same each time."""
        rng = np.random.default_rng(seeded(self.recipe.seed, 2))
        return waveforms((self.heldout[i] for i in range(clips)), self.rate, self.count, rng)
