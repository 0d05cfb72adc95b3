"""Clips of scenes with sound, of many lengths and frame rates: the source `world-sound`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hy_core.data import ClipShape, SourceSpec
from hy_core.errors import UsageError

from hy_world.scene import Scene, sample_scene
from hy_world.sound import impacts
from hy_world.sources.procedural import ProceduralSource
from hy_world.sources.scenes import SceneClip

_MIN_FRAMES = 9  # fewer don't show a motion


@dataclass(frozen=True)
class SoundingOptions:
    """The table `[data.sources.world-sound]`.

    Impacts happen at fixed fractions of a scene, so clips vary in what could give these moments away: `seconds` and
    `fps` are (from, to), and a share of `windows` are cut out of scenes up to twice as long. `impacts` is the share of
    clips in which an object certainly hits the floor; without it, that is one in nine. `objects` is 1 or 2, 0 for
    either.
    """

    seconds: tuple[float, ...] = (1.0, 4.0)
    fps: tuple[float, ...] = (6.0, 24.0)
    windows: float = 0.5
    impacts: float = 0.0
    objects: int = 0


class SoundingSource(ProceduralSource[SceneClip]):
    """Scenes with sound; `group` neighbours last equally long. `UsageError` for ranges that are none."""

    def __init__(self, spec: SourceSpec) -> None:
        super().__init__(spec)
        self.options = spec.read_options(SoundingOptions)
        for name in ("seconds", "fps"):
            limits = getattr(self.options, name)
            if len(limits) != 2 or not 0 < limits[0] <= limits[1] <= 600:
                raise UsageError(
                    f"{spec.label}: {name} = {list(limits)}", "give [from, to], such as [1.0, 4.0]"
                )

    def __getitem__(self, index: int) -> SceneClip:
        if not 0 <= index < self.spec.count:
            raise IndexError(index)
        spec, options = self.spec, self.options
        shared = np.random.default_rng((spec.seed, 2, index // spec.group))
        seconds = round(shared.uniform(options.seconds[0], options.seconds[1]) * 100) / 100
        rng = np.random.default_rng((spec.seed, 3, index))
        frames = max(round(seconds * rng.uniform(options.fps[0], options.fps[1])), _MIN_FRAMES)
        fps = frames / seconds
        whole = round(frames * rng.uniform(1, 2)) if rng.random() < options.windows else frames
        start = int(rng.integers(whole - frames + 1))
        scene = self._scene(rng, whole, fps)
        return SceneClip(
            scene, frames, spec.height, spec.width, fps, whole, start, seed=int(rng.integers(1 << 31))
        )

    def shape(self, index: int) -> ClipShape:
        return ClipShape(self[index].frames, self.spec.height, self.spec.width)

    def _scene(self, rng: np.random.Generator, frames: int, fps: float) -> Scene:
        spec, options = self.spec, self.options
        must_hit = rng.random() < options.impacts
        while True:
            scene = sample_scene(rng, spec.split, frames, spec.height, spec.width, options.objects or None)
            if not must_hit or impacts(scene, frames, fps):
                return scene
