"""Clips as latents, made once and kept: a clip is a number, from which its pixels, words and truth come."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from hy_core.dit.layers import CPU_HAS_BF16
from hy_core.objective import seeded
from hy_core.weights import save_safetensors
from rich.console import Console
from rich.progress import track
from safetensors.torch import load_file
from torch import Tensor

from hy_train.objectives.vae import pixels
from hy_train.source import WORLD

if TYPE_CHECKING:
    from hy_core.vae import VAE
    from hy_world.clips import Clip, Source

_SHARD = 256  # clips of a file
_ROWS = 8  # clips encoded together
_UNLIKE = 30  # from the background, of 255 in any colour: a thing
_CLIPS = 16384  # that are remembered: to make up a speech takes as long as to draw it


@dataclass(frozen=True)
class Bucket:
    """Clips of one shape: how many there are, and how often a batch is drawn from them.

    None are drawn before the share `begin` of the run's steps is done: pictures first, which cost a fraction, then
    clips (the paper's curriculum, section 4.5). `objects` is how many things a clip shows; 0 leaves it to the
    source. `source` names the dataset that the clips come from, `conditioning` those of the recipe's plugins that
    condition its batches (all of them if it isn't given), `batch` the rows of these (the recipe's if 0): of pictures
    more fit into the time of a step than of clips. `aligned` is false where the recipe's teacher knows nothing of them.
    """

    frames: int
    height: int
    width: int
    clips: int
    share: float = 1.0
    begin: float = 0.0
    objects: int = 0
    source: str = ""  # that of the recipe if not given
    conditioning: tuple[str, ...] | None = None
    batch: int = 0
    aligned: bool = True

    @property
    def file(self) -> str:
        """What the files of its latents are called, before the number of their first clip."""
        shape = f"{self.frames}x{self.height}x{self.width}" + (f"x{self.objects}" if self.objects else "")
        return shape if self.source in ("", WORLD) else f"{self.source}-{shape}"


class Latents:
    """Latents of numbered clips, [C, F, h, w] each, in the scale the DiT works in (float16 on disk and in memory).

    Beside them it is kept which of their places show more than the empty background.
    """

    def __init__(
        self,
        buckets: Sequence[Bucket],
        seed: int,
        folder: Path,
        vae: Callable[[], VAE],
        sources: Mapping[str, Source],
    ):
        self.buckets, self.seed, self.folder, self._make_vae = list(buckets), seed, folder, vae
        self.sources = sources
        self._held: list[dict[str, Tensor]] = []
        self.clip = lru_cache(_CLIPS)(self.draw)

    def draw(self, bucket: int, index: int) -> Clip:
        """Return a clip, from the training split; `clip` is the same, and remembers."""
        b = self.buckets[bucket]
        rng = np.random.default_rng(seeded(self.seed, 5, b.frames, b.height, b.width, index))
        return self.sources[b.source].clip(rng, "train", b.frames, b.height, b.width, b.objects or None)

    def caption(self, bucket: int, index: int, rng: np.random.Generator) -> str:
        """Draw a caption of a clip."""
        return self.clip(bucket, index).caption(rng)

    def get(self, bucket: int, indices: np.ndarray) -> Tensor:
        """Return latents [B, C, F, h, w], float32."""
        return self._held[bucket]["latents"][torch.from_numpy(np.asarray(indices))].float()

    def things(self, bucket: int, indices: np.ndarray) -> Tensor:
        """Return where things are, [B, 1, F, h, w], 0 or 1 (see `places`)."""
        return self._held[bucket]["things"][torch.from_numpy(np.asarray(indices))].float()

    def pixels(self, bucket: int, indices: Sequence[int]) -> Tensor:
        """Draw clips [B, 3, T, H, W] in [-1, 1]."""
        return torch.stack([pixels(self.clip(bucket, int(index)).pixels()) for index in indices])

    @torch.no_grad()
    def fill(self) -> None:
        """Encode what is not on disk yet, a shard at a time, and hold all of it in memory."""
        self.folder.mkdir(parents=True, exist_ok=True)
        shards = [
            (number, first, self.folder / f"{b.file}-{first:06d}.safetensors")
            for number, b in enumerate(self.buckets)
            for first in range(0, b.clips, _SHARD)
        ]
        missing = [shard for shard in shards if not shard[2].exists()]
        vae = self._make_vae().eval() if missing else None
        console = Console(stderr=True)  # stdout is the report's
        for number, first, path in track(missing, "encoding clips", console=console, disable=not missing):
            b = self.buckets[number]
            last, rows, things = min(first + _SHARD, b.clips), [], []
            for start in range(first, last, _ROWS):
                indices = range(start, min(start + _ROWS, last))
                videos = self.pixels(number, indices)
                with torch.autocast("cpu", torch.bfloat16, enabled=CPU_HAS_BF16):  # half the time
                    found = vae.encode_inference(videos).mode()
                rows.append(vae.to_model(found).half())
                grounds = np.stack([self.clip(number, index).ground() for index in indices])
                things.append(places(videos, grounds, found.shape[2:]))
            save_safetensors(path, {"latents": torch.cat(rows), "things": torch.cat(things)})
        files = [
            [load_file(path) for number, _, path in shards if number == wanted]
            for wanted in range(len(self.buckets))
        ]
        self._held = [{name: torch.cat([file[name] for file in one]) for name in one[0]} for one in files]


def places(videos: Tensor, grounds: np.ndarray, grid: tuple[int, int, int]) -> Tensor:
    """Where clips [B, 3, T, H, W] in [-1, 1] aren't their backgrounds [B, H, W, 3] in 0..255: bool [B, 1, F, h, w].

    A place of latents counts if any of its pixels or of its neighbours' does: a codec spreads what it sees.
    """
    ground = torch.from_numpy(grounds).permute(0, 3, 1, 2)[:, :, None].float() / 127.5 - 1
    away = ((videos - ground).abs().amax(1, keepdim=True) > _UNLIKE / 127.5).float()
    frames, *size = grid
    first = F.adaptive_max_pool3d(away[:, :, :1], (1, *size))
    if frames > 1:
        first = torch.cat([first, F.adaptive_max_pool3d(away[:, :, 1:], (frames - 1, *size))], 2)
    return F.max_pool3d(first, (1, 3, 3), stride=1, padding=(0, 1, 1)).bool()
