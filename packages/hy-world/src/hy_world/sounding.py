"""Clips of the world with their sound, as many as are asked for: what models of sound learn from."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from hy_world.captions import caption
from hy_world.render import render
from hy_world.scene import Scene, sample_scene
from hy_world.sound import RATE, impacts, sound

_FEWEST = 9  # frames that show a motion


class SoundingWorld:
    """`length` clips with sound and captions; the item at an index is the same in every run and worker.

    Everything that hits the floor does so at fixed shares of a clip, so clips differ in all that could give these
    moments away: `seconds` and `fps` are ranges, and a share of `windows` are cut out of clips up to twice as long.
    `block` neighbours last equally long, so that their sounds can be stacked. `impacts` is the share of clips in
    which something surely hits the floor: the world's own share is one in nine. `sizes` are (height, width).
    """

    def __init__(
        self,
        length: int,
        seed: int = 0,
        split: str = "train",
        seconds: Sequence[float] = (1.0, 4.0),
        fps: Sequence[float] = (6.0, 24.0),
        sizes: Sequence[Sequence[int]] = ((64, 64),),
        windows: float = 0.5,
        impacts: float = 0.0,
        block: int = 1,
        objects: int | None = None,
    ) -> None:
        self.length, self.seed, self.split = length, seed, split
        self.seconds, self.fps, self.sizes = tuple(seconds), tuple(fps), tuple(sizes)
        self.windows, self.impacts, self.block, self.objects = windows, impacts, block, objects

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return pixels (a function that draws uint8 [T, H, W, 3]), fps, sound (float32 [N]), rate and caption.

        The sound lasts as long as the frames. Scene, frames and start (frames before the window) tell the truth.
        """
        if not 0 <= index < self.length:
            raise IndexError(index)
        shared = np.random.default_rng((self.seed, 2, index // self.block))
        seconds = round(shared.uniform(*self.seconds) * 100) / 100
        rng = np.random.default_rng((self.seed, 3, index))
        frames = max(round(seconds * rng.uniform(*self.fps)), _FEWEST)
        fps = frames / seconds
        whole = round(frames * rng.uniform(1, 2)) if rng.random() < self.windows else frames
        start = int(rng.integers(whole - frames + 1))
        height, width = self.sizes[rng.integers(len(self.sizes))]
        scene = self._scene(rng, whole, height, width, fps)
        words = caption(rng, scene, whole).text
        first, count = round(start / fps * RATE), round(seconds * RATE)
        heard = sound(scene, whole, fps, int(rng.integers(1 << 31)))[first : first + count]
        return {
            "pixels": partial(_pixels, scene, whole, height, width, start, frames),
            "fps": fps,
            "sound": np.pad(heard, (0, count - len(heard))),
            "rate": RATE,
            "caption": words,
            "scene": scene,
            "frames": whole,
            "start": start,
        }

    def _scene(self, rng: np.random.Generator, frames: int, height: int, width: int, fps: float) -> Scene:
        must_hit = rng.random() < self.impacts
        while True:
            scene = sample_scene(rng, self.split, frames, height, width, self.objects)
            if not must_hit or impacts(scene, frames, fps):
                return scene


def _pixels(scene: Scene, whole: int, height: int, width: int, start: int, frames: int) -> np.ndarray:
    return render(scene, whole, height, width)[start : start + frames]
