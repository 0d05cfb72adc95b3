"""Clips of moving coloured shapes: the source `world`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hy_core.data import Clip, SourceSpec
from hy_core.errors import UsageError
from hy_core.request import Sound

from hy_world.attributes import COLOURS, MOTIONS, SHAPES
from hy_world.captions import caption
from hy_world.render import backdrop, render
from hy_world.scene import FPS, FRAMES, Scene, sample_scene
from hy_world.sources.procedural import ProceduralSource


def sample(
    rng: np.random.Generator,
    split: str = "train",
    frames: int = FRAMES,
    height: int = 64,
    width: int = 64,
    objects: int | None = None,
) -> tuple[Scene, np.ndarray]:
    """Draw a scene and its clip, uint8 [T, H, W, 3]."""
    scene = sample_scene(rng, split, frames, height, width, objects)
    return scene, render(scene, frames, height, width)


@dataclass(frozen=True, eq=False)
class SceneClip(Clip):
    """A scene as a clip of `frames` frames at `fps`, or a window of it.

    `whole` is the number of frames of the scene's motion, `start` the first one shown; `seed` draws the sound.
    """

    scene: Scene
    frames: int
    height: int
    width: int
    fps: float = FPS
    whole: int = 0  # as many as `frames` if 0
    start: int = 0
    seed: int = 0

    def video(self) -> np.ndarray:
        shown = render(self.scene, self.whole or self.frames, self.height, self.width)
        return shown[self.start : self.start + self.frames]

    def caption(self, rng: np.random.Generator) -> str:
        return caption(rng, self.scene, self.whole or self.frames).text

    def sound(self) -> Sound:
        """Return the sound of the frames, mono at 16 kHz."""
        from hy_world.sound import RATE, sound

        whole = sound(self.scene, self.whole or self.frames, self.fps, self.seed)
        first, count = round(self.start / self.fps * RATE), round(self.frames / self.fps * RATE)
        part = whole[first : first + count]
        return Sound(np.pad(part, (0, count - len(part)))[None].astype(np.float32), RATE)

    def annotations(self) -> dict[str, Any]:
        """Return the `scene`, with `whole` (its frames) and `start` (frames before the window)."""
        return {"scene": self.scene, "whole": self.whole or self.frames, "start": self.start}

    def background(self) -> np.ndarray:
        return backdrop(self.scene.background, self.height, self.width)


@dataclass(frozen=True)
class SceneOptions:
    """The table `[data.sources.world]`.

    `objects` is 1 or 2, 0 for two in a quarter of the clips; `oversample` says how many times as often as others
    objects of a colour, shape or motion are drawn: `{ star = 2 }`.
    """

    objects: int = 0
    oversample: dict[str, int] = field(default_factory=dict)


class WorldSource(ProceduralSource[SceneClip]):
    """Scenes with captions, sound and the background; `UsageError` for an unknown name in `oversample`."""

    def __init__(self, spec: SourceSpec) -> None:
        super().__init__(spec)
        self.options = spec.read_options(SceneOptions)
        check_oversample(self.options.oversample, f"{spec.label}: oversample")
        if self.options.objects not in (0, 1, 2):
            raise UsageError(
                f"{spec.label}: objects = {self.options.objects}", "give 1 or 2, or 0 for either"
            )

    def draw(self, rng: np.random.Generator) -> SceneClip:
        spec, options = self.spec, self.options
        scene = sample_scene(
            rng, spec.split, spec.frames, spec.height, spec.width, options.objects or None, options.oversample
        )
        return SceneClip(scene, spec.frames, spec.height, spec.width)


def check_oversample(factors: Mapping[str, Any], where: str) -> None:
    """Raise `UsageError` for a name that is no colour, shape or motion, or a factor that is no number from 1 on."""
    if unknown := sorted(set(factors) - {*COLOURS, *SHAPES, *MOTIONS}):
        raise UsageError(f"{where}: nothing is called {unknown[0]!r}", "name colours, shapes or motions")
    for name, factor in factors.items():
        if isinstance(factor, bool) or not isinstance(factor, int) or not 1 <= factor <= 1000:
            raise UsageError(f"{where}: {name} = {factor!r} is not a whole number from 1 to 1000")
