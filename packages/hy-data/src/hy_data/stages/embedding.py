"""Stages that describe a clip for comparing it with others: a vector, and a signature of small pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from hy_core.data import JSON, ClipRecord, Resources
from hy_core.errors import UsageError
from hy_core.options import option

from hy_data.frames import ClipFrames, FrameStage, View

PICTURE_HEIGHT = 192
_RATE = 2.0


class Embedding(FrameStage):
    """A vector per clip, unit length, for nearest neighbours and concepts.

    `appearance` needs no weights: colours and layout of its frames, the same for mirrored ones. `nsfw` takes what the
    last pooling layer of open_nsfw sees (the package of the extra `models`). `clip` and `xclip` load a transformers
    model from the folder `weights`.
    """

    name = "embedding"
    resources: ClassVar[Resources] = Resources(memory=2 << 30)

    @dataclass(frozen=True)
    class Options:
        backend: Literal["appearance", "nsfw", "clip", "xclip"] = option(
            "appearance", help="what makes the vector"
        )
        weights: Path | None = option(None, help="folder of a transformers model, for clip and xclip")
        frames: int = option(
            8, minimum=1, maximum=64, help="most frames of a clip; xclip takes its model's number"
        )
        device: str = option("auto", help="auto, cpu, cuda, ...: where clip and xclip run")

    options: Options

    def __init__(self, options: Options | None = None, /, **values: object) -> None:
        super().__init__(options, **values)
        if (self.options.backend in ("clip", "xclip")) != (self.options.weights is not None):
            raise UsageError(
                f"[stage.embedding] backend {self.options.backend} with weights {self.options.weights}",
                "clip and xclip need the folder of a transformers model, the others take none",
            )
        self._embed: Callable[[np.ndarray], np.ndarray] | None = None

    def setup(self) -> None:
        """Load the model; `MissingError` for a package or folder that isn't there."""
        options = self.options
        if options.backend == "appearance":
            from hy_data.select.pictures import appearance

            self._embed = appearance
        elif options.backend == "nsfw":
            from hy_data.embedders.nsfw import NsfwEmbedder

            self._embed = NsfwEmbedder()
        else:
            from hy_data.embedders.transformer import load

            assert options.weights is not None
            self._embed = load(options.backend, options.weights, options.device)

    def views(self) -> tuple[View, ...]:
        if self.options.backend in ("appearance", "nsfw"):
            return (View(PICTURE_HEIGHT, fps=_RATE),)
        return (View(288, count=self.options.frames),)

    def measure(
        self, record: ClipRecord, frames: ClipFrames
    ) -> tuple[Mapping[str, JSON | np.ndarray], str | None]:
        if self._embed is None:
            self.setup()
        assert self._embed is not None
        (view,) = self.views()
        pictures = frames[view]
        vector = self._embed(pictures[spread(len(pictures), self.options.frames)])
        return {"embedding": vector.astype(np.float16)}, None


class SignatureStage(FrameStage):
    """Small grey pictures of a clip as bytes (uint8), so that duplicates are verified without reading a video again.

    Of each part of the clip it takes the stillest frame: a copy that begins elsewhere or runs at another speed has the
    same still moments.
    """

    name = "signature"

    @dataclass(frozen=True)
    class Options:
        seconds: float = option(
            0.6, minimum=0.1, maximum=60, help="length of the parts that give a picture each"
        )
        frames: int = option(10, minimum=1, maximum=64, help="most pictures of a clip")
        height: int = option(160, minimum=64, maximum=256, help="height of a picture in pixels")
        quality: int = option(50, minimum=1, maximum=100, help="WebP quality of a picture")

    options: Options

    def views(self) -> tuple[View, ...]:
        return (View(256, fps=12, gray=True),)

    def measure(
        self, record: ClipRecord, frames: ClipFrames
    ) -> tuple[Mapping[str, JSON | np.ndarray], str | None]:
        from hy_data.select.pictures import shrunk, stillest
        from hy_data.select.signature import encode

        (view,) = self.views()
        pictures = frames[view]
        parts = int(min(max(frames.duration / self.options.seconds, 3), self.options.frames))
        chosen = stillest(pictures, parts)
        small = shrunk(pictures[chosen], self.options.height)
        return {"signature": encode(small, frames.times(view)[chosen], self.options.quality)}, None


def spread(count: int, most: int) -> np.ndarray:
    """Return the indices [N] of at most `most` of `count` frames, evenly spread, first and last among them."""
    if count <= most:
        return np.arange(count)
    return np.linspace(0, count - 1, most).round().astype(int) if most > 1 else np.array([count // 2])
