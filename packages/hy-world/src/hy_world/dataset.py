"""Endless clips of the world, drawn when they are asked for: for training, and as plain numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from hy_core.errors import UsageError

from hy_world.captions import caption
from hy_world.render import backdrop, render
from hy_world.scene import COLOURS, FRAMES, MOTIONS, SHAPES, Scene, sample_scene

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


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


@dataclass(frozen=True)
class SceneClip:
    """A scene as a `hy_world.clips.Clip`."""

    scene: Scene
    frames: int
    height: int
    width: int

    def pixels(self) -> np.ndarray:
        """Frames, uint8 [T, H, W, 3]."""
        return render(self.scene, self.frames, self.height, self.width)

    def ground(self) -> np.ndarray:
        """The empty background, uint8 [H, W, 3]."""
        return backdrop(self.scene.background, self.height, self.width)

    def caption(self, rng: np.random.Generator) -> str:
        return caption(rng, self.scene, self.frames).text

    def truth(self) -> dict[str, Any]:
        return {"scene": self.scene}


class WorldDataset:
    """`length` clips with captions; the item at an index is the same in every run and worker.

    `shapes` are the (frames, height, width) to draw from. `block` neighbours share one shape, so that batches
    of that many consecutive items can be stacked. Clips shorter than a whole one (but not pictures) are
    windows cut from a whole one, at normal speed: right for a VAE, but their captions may promise what comes
    later. `often` is `sample_scene`'s.
    """

    def __init__(
        self,
        length: int = 0,
        seed: int = 0,
        split: str = "train",
        shapes: Sequence[tuple[int, int, int]] = ((FRAMES, 64, 64),),
        block: int = 1,
        objects: int | None = None,
        often: Mapping[str, int] | None = None,
    ) -> None:
        if unknown := sorted(set(often or ()) - {*COLOURS, *SHAPES, *MOTIONS}):
            raise UsageError(f"often: nothing is called {unknown[0]!r}", "name colours, shapes or motions")
        self.often = often
        self.length, self.seed, self.split = length, seed, split
        self.shapes, self.block, self.objects = tuple(shapes), block, objects

    def clip(
        self,
        rng: np.random.Generator,
        split: str,
        frames: int,
        height: int,
        width: int,
        things: int | None = None,
    ) -> SceneClip:
        """Draw a clip: see `hy_world.clips.Source`."""
        scene = sample_scene(rng, split, frames, height, width, things or self.objects, self.often)
        return SceneClip(scene, frames, height, width)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return video (float32 tensor [3, T, H, W] in -1..1), caption, stated (a `Caption`) and scene."""
        import torch

        if not 0 <= index < self.length:
            raise IndexError(index)
        choice = np.random.default_rng((self.seed, 0, index // self.block)).integers(len(self.shapes))
        frames, height, width = self.shapes[choice]
        rng = np.random.default_rng((self.seed, 1, index))
        whole = frames if frames == 1 else max(frames, FRAMES)
        scene = sample_scene(rng, self.split, whole, height, width, self.objects, self.often)
        video = render(scene, whole, height, width)
        words = caption(rng, scene, frames)
        start = int(rng.integers(whole - frames + 1))
        pixels = torch.from_numpy(video[start : start + frames]).permute(3, 0, 1, 2)
        return {
            "video": pixels.float() / 127.5 - 1,
            "caption": words.text,
            "stated": words,
            "scene": scene,
        }


def collate(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Make a batch of `WorldDataset` items: videos stacked to [B, 3, T, H, W], everything else in lists."""
    import torch

    batch: dict[str, Any] = {key: [row[key] for row in rows] for key in rows[0]}
    batch["video"] = torch.stack(batch["video"])
    return batch
