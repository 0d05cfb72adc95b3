"""Train a face codec with `hy train`: the objective "face-codec" over pairs of frames of a source's clips."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from hy_core.data import DataSource, SourceSpec, Split, open_source
from hy_core.errors import UsageError
from hy_core.plugins import Plugins
from hy_core.tables import from_table
from hy_core.training import Objective, seeded
from hy_core.weights import save_safetensors
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from hy_avatar.expression_extract import DIMENSION
from hy_avatar.expression_extract_train import losses
from hy_avatar.face_codec import FaceCodec, crops, save_codec

if TYPE_CHECKING:
    from hy_core.training import Recipe

NAME = "face-codec.safetensors"
"""The file that comes of it, for `--avatar-face-codec`."""
_SHARD = 256  # clips of a file


@dataclass(frozen=True)
class CodecModel:
    """The recipe's `[model]`: see `FaceCodec`."""

    size: int = 64
    width: int = 32
    dimension: int = DIMENSION
    pose: int = 8
    identity: int = 32


@dataclass(frozen=True)
class CodecData:
    """The recipe's `[data]`: which clips, how many, and how many frames of each are kept.

    Faces are cut out of clips of `frames` x `height` x `width` around the boxes that the source tells, times `area`.
    """

    source: str = "characters"
    sources: dict[str, Any] = field(default_factory=dict)  # a table for the source's own options
    clips: int = 4096
    kept: int = 4
    frames: int = 17
    height: int = 64
    width: int = 64
    area: float = 1.4


@dataclass(frozen=True)
class CodecLoss:
    """The recipe's `[options]`: weights of the two disentangling losses beside that of drawing right."""

    transfer: float = 1.0
    identity: float = 0.1


class FaceCodecObjective(Objective[tuple[Tensor, Tensor]]):
    """VASA-1's losses (see `expression_extract_train.losses`) on pairs of frames, each pair of another clip."""

    model: FaceCodec

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        super().__init__(recipe, folder)
        self.data = from_table(CodecData, recipe.data, "data")
        self.options = from_table(CodecLoss, recipe.options, "options")
        sizes = from_table(CodecModel, recipe.model, "model")
        if recipe.batch < 2 or self.data.clips < recipe.batch or not 2 <= self.data.kept <= self.data.frames:
            raise UsageError(
                f"a batch of {recipe.batch} of {self.data.clips} clips, {self.data.kept} of {self.data.frames} frames",
                "a batch needs two clips or more, each another one, and two frames or more of each",
            )
        torch.manual_seed(recipe.seed)
        self.model = FaceCodec(**vars(sizes))
        self.plugins = Plugins()
        self.plugins.load(*dict.fromkeys(("avatar", *recipe.plugins)))
        if unused := sorted(set(self.data.sources) - {self.data.source}):
            raise UsageError(f"[data.sources.{unused[0]}]: no clips of this recipe come from {unused[0]!r}")
        self.train, self.heldout = self.open("train"), self.open("heldout")

    def open(self, split: Split) -> DataSource:
        """Open the clips of a split."""
        data = self.data
        spec = SourceSpec(
            data.source,
            split,
            self.recipe.seed,
            data.clips,
            data.frames,
            data.height,
            data.width,
            options=data.sources.get(data.source, {}),
        )
        return open_source(spec, self.plugins)

    def faces(self, source: DataSource, index: int) -> Tensor:
        """Cut the face out of some frames of a clip: uint8 [kept, 3, S, S]."""
        data, clip = self.data, source[index]
        rng = np.random.default_rng(seeded(self.recipe.seed, 7 if source is self.train else 8, index))
        try:
            boxes = np.asarray(clip.annotations()["faces"][0]) / ([data.width, data.height] * 2)
        except KeyError:
            raise UsageError(
                f"data.source: {data.source!r} doesn't tell where faces are",
                "take characters, or talking-clips whose records went through talking-head",
            ) from None
        at = np.sort(rng.choice(data.frames, data.kept, replace=False))
        cut = crops(clip.video()[at], self.model.size, np.clip(boxes[at], 0, 1), data.area)
        return ((cut + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)

    def prepare(self) -> None:
        """Cut out all faces, once, into files of 256 clips, and hold them in memory."""
        folder = self.folder / "faces"
        folder.mkdir(parents=True, exist_ok=True)
        shards = []
        for first in range(0, self.data.clips, _SHARD):
            path = folder / f"{first:06d}.safetensors"
            if not path.exists():
                rows = [self.faces(self.train, i) for i in range(first, min(first + _SHARD, self.data.clips))]
                save_safetensors(path, {"faces": torch.stack(rows)})
            shards.append(load_file(path)["faces"])
        self.held = torch.cat(shards)  # [clips, kept, 3, S, S]

    def batch(self, step: int, rank: int = 0, ranks: int = 1) -> tuple[Tensor, Tensor]:
        """Return two frames of each clip, [B, 3, S, S] in -1..1 each."""
        rng = np.random.default_rng(seeded(self.recipe.seed, 9, step, rank))
        rows = rng.choice(len(self.held), self.recipe.batch, replace=False)
        return pair(self.held[torch.from_numpy(rows)], rng)

    def loss(
        self, batch: tuple[Tensor, Tensor], generator: torch.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of pairs of pictures [B, 3, H, W], a scalar tensor, and its parts as numbers."""
        found = losses(self.model, *batch)
        each = {name: float(value.detach()) for name, value in vars(found).items()}
        return found.total(self.options.transfer, self.options.identity), each

    @torch.no_grad()
    def evaluate(self, clips: int = 32) -> dict[str, float]:
        """Each loss on held-out clips, and `still`: the mean difference of the two frames, which none must reach."""
        rng = np.random.default_rng(seeded(self.recipe.seed, 10))
        count = min(clips, len(self.heldout))
        one, other = pair(torch.stack([self.faces(self.heldout, index) for index in range(count)]), rng)
        place = next(self.model.parameters()).device
        one, other = one.to(place), other.to(place)
        found = losses(self.model, one, other)
        still = functional.l1_loss(one, other)
        return {name: float(value) for name, value in vars(found).items()} | {"still": float(still)}

    def export(self, folder: Path) -> None:
        """Write `face-codec.safetensors`."""
        folder.mkdir(parents=True, exist_ok=True)
        save_codec(folder / NAME, self.model)
        about = {"name": self.recipe.name, "face_codec": self.model.settings}
        (folder / "config.json").write_text(json.dumps(about, indent=1), encoding="utf-8")


def pair(faces: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Draw two frames of each clip's, uint8 [B, kept, 3, S, S]: [B, 3, S, S] in -1..1 each."""
    order = torch.from_numpy(rng.random(faces.shape[:2]).argsort(1)[:, :2])
    rows = torch.arange(len(faces))
    one, other = (faces[rows, order[:, k]].float() / 127.5 - 1 for k in (0, 1))
    return one, other
