"""How pleasing a clip looks: a hand-made proxy, or CLIP with a linear head by given weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from hy_core.data import JSON, ClipRecord, Score, Stage
from hy_core.errors import MissingError, UsageError
from hy_core.options import option

from hy_data import pictures
from hy_data.frames import ClipFrames, FrameStage, View


class Aesthetics(FrameStage):
    """Score a few frames.

    The backend "proxy" finds `aesthetic_proxy` (0 to 1), the mean of four terms in 0 to 1: colourfulness, contrast,
    exposure and composition. It is made by hand, was fitted to no votes, and tells washed-out, dark and empty pictures
    from others, not beauty. The backend "clip" finds `aesthetic` by a head on CLIP's normalised image vector.
    """

    name = "aesthetics"
    scores = (
        Score("aesthetic_proxy", "hand-made proxy of aesthetics, 0 to 1", "high"),
        Score("aesthetic", "mean score of the given head on CLIP", "high"),
        Score("colourfulness", "mean colourfulness, 0 grey to 100 gaudy", "high"),
        Score("contrast", "mean deviation of the brightness, 0 to 0.5", "high"),
        Score("composition", "how near the salient part is to the middle or the thirds, 0 to 1", "high"),
    )

    @dataclass(frozen=True)
    class Options(Stage.Options):
        """What scores."""

        backend: Literal["proxy", "clip"] = option(
            "proxy", help="What scores: the proxy, or clip with a head."
        )
        frames: int = option(8, help="Frames that are examined.", minimum=1, maximum=64)
        model: Path | None = option(None, help="Folder of a CLIP model of transformers.")
        head: Path | None = option(
            None, help="Safetensors file of the head: linear layers, applied in order."
        )

    options: Options

    @cached_property
    def _model(self) -> ClipHead:
        if self.options.model is None or self.options.head is None:
            raise UsageError("aesthetics: backend = clip needs model and head", "name a folder and a file")
        return ClipHead(self.options.model, self.options.head)

    def setup(self) -> None:
        if self.options.backend == "clip":
            _ = self._model

    def views(self) -> tuple[View, ...]:
        return (View(360, count=self.options.frames),)

    def measure(self, record: ClipRecord, frames: ClipFrames) -> tuple[Mapping[str, JSON | np.ndarray], None]:
        images = frames[self.views()[0]]
        if self.options.backend == "clip":
            return {"aesthetic": round(self._model.score(images), 5)}, None
        found = np.array([proxy(image) for image in images]).mean(0)
        names = ("aesthetic_proxy", "colourfulness", "contrast", "composition")
        return {name: round(float(value), 5) for name, value in zip(names, found, strict=True)}, None


def proxy(image: np.ndarray) -> tuple[float, float, float, float]:
    """Return the proxy of a picture uint8 [H, W, 3], and its colourfulness, contrast and composition."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    colour, contrast = pictures.colourfulness(image), float(gray.std() / 255)
    brightness, dark, bright = pictures.exposure(gray)
    composed = pictures.composition(gray)
    terms = (
        min(colour / 50, 1.0, max(2.2 - colour / 100, 0.0)),  # gaudy is no better than colourful
        min(contrast / 0.22, 1.0),
        max(1 - 2 * abs(brightness - 0.45), 0.0) * max(1 - 2 * (dark + bright), 0.0),
        composed,
    )
    return sum(terms) / len(terms), colour, contrast, composed


class ClipHead:
    """CLIP's image vector and linear layers on it; `MissingError` or `UsageError` for files that don't fit."""

    def __init__(self, model: Path, head: Path) -> None:
        from hy_core.weights.files import load_state

        from hy_data.embedders.transformer import load

        if not head.is_file():
            raise MissingError(f"aesthetics: no such file: {head}")
        self.embed, self.head = load("clip", model), head
        tensors = {name: tensor.float().numpy() for name, tensor in load_state(head).items()}
        names = sorted(
            (name for name in tensors if name.endswith("weight")),
            key=lambda name: [int(part) for part in name.split(".") if part.isdigit()],
        )
        self.layers: list[tuple[np.ndarray, np.ndarray]] = []
        for name in names:
            weight = tensors[name]
            bias = tensors.get(name.removesuffix("weight") + "bias", np.zeros(len(weight), np.float32))
            wide = len(self.layers[-1][0]) if self.layers else weight.shape[-1]
            if weight.ndim != 2 or weight.shape[1] != wide or bias.shape != weight.shape[:1]:
                raise UsageError(f"{head}: {name} is {list(weight.shape)}, not [N, {wide}]")
            self.layers.append((weight, bias))
        if not self.layers or len(self.layers[-1][0]) != 1:
            raise UsageError(
                f"{head} is no head that gives one score", "give linear layers, the last of [1, N]"
            )

    def score(self, images: np.ndarray) -> float:
        """Return the mean score of pictures uint8 [T, H, W, 3]."""
        values = np.stack([self.embed(image[None]) for image in images])
        if values.shape[1] != self.layers[0][0].shape[1]:
            raise UsageError(
                f"{self.head} takes vectors of {self.layers[0][0].shape[1]}, the model's have {values.shape[1]}"
            )
        for weight, bias in self.layers:
            values = values @ weight.T + bias
        return float(values.mean())
