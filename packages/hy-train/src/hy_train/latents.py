"""Clips as latents: encoded once, cached on disk and held in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from hy_core.data import Clip, ClipShape, DataSource
from hy_core.dit.layers import CPU_HAS_BF16
from hy_core.errors import UsageError
from hy_core.training.batch import to_pixels
from hy_core.weights import save_safetensors
from rich.console import Console
from rich.progress import track
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

if TYPE_CHECKING:
    from hy_core.vae import VAE

_SHARD = 256  # clips of a file
_ROWS = 8  # clips encoded together
_DIFFERENCE = 30  # of 255, in any colour: less than that from the background is background
_CACHED_CLIPS = 16384  # clips held in memory: synthesising speech costs as much as rendering


class LatentCache:
    """Latents [C, F, h, w] of the clips of several sources, in the DiT's scale; float16 on disk and in memory.

    With each clip comes its foreground: the places that show more than the background. Files are named by the shape
    and the fingerprint of their source, so that clips that changed are encoded anew.
    """

    def __init__(self, sources: Sequence[DataSource], folder: Path, make_vae: Callable[[], VAE]) -> None:
        self.sources, self.folder, self._make_vae = list(sources), folder, make_vae
        self._held: list[dict[str, Tensor]] = []
        self.clip = lru_cache(_CACHED_CLIPS)(self._clip)

    def _clip(self, source: int, index: int) -> Clip:
        return self.sources[source][index]

    def clips(self, source: int, indices: Sequence[int] | np.ndarray) -> list[Clip]:
        """Return the clips of indices [B] of a source; they are held in memory once opened, their pixels aren't."""
        return [self.clip(source, int(index)) for index in indices]

    def keys(self, source: int, indices: Sequence[int] | np.ndarray) -> list[str]:
        """Return names of the clips of indices [B], which differ where the clips do."""
        return [f"{self.sources[source].fingerprint}-{index}" for index in indices]

    def shape(self, source: int) -> ClipShape:
        """Return the shape in pixels that all clips of a source have."""
        return self.sources[source].shape(0)

    def get(self, source: int, indices: np.ndarray) -> Tensor:
        """Return latents [B, C, F, h, w], float32."""
        return self._held[source]["latents"][torch.from_numpy(np.asarray(indices))].float()

    def foreground(self, source: int, indices: np.ndarray) -> Tensor:
        """Return the foreground of clips, float32 [B, 1, F, h, w] of 0 and 1 (see `foreground_mask`)."""
        return self._held[source]["foreground"][torch.from_numpy(np.asarray(indices))].float()

    @torch.no_grad()
    def fill(self) -> None:
        """Encode the clips that aren't on disk yet, a file of 256 at a time, and load all of them."""
        self.folder.mkdir(parents=True, exist_ok=True)
        shards = [
            (number, first, self.folder / f"{self._name(source)}-{first:06d}.safetensors")
            for number, source in enumerate(self.sources)
            for first in range(0, len(source), _SHARD)
        ]
        missing = [shard for shard in shards if not shard[2].exists()]
        vae = self._make_vae().eval() if missing else None
        console = Console(stderr=True)  # stdout is for the report
        for number, first, path in track(missing, "encoding clips", console=console, disable=not missing):
            assert vae is not None
            save_safetensors(path, self._encode(vae, number, first))
        files = [
            [_load(path) for number, _, path in shards if number == wanted]
            for wanted in range(len(self.sources))
        ]
        self._held = [{name: torch.cat([file[name] for file in one]) for name in one[0]} for one in files]

    def _encode(self, vae: VAE, source: int, first: int) -> dict[str, Tensor]:
        last = min(first + _SHARD, len(self.sources[source]))
        latents, foreground = [], []
        for start in range(first, last, _ROWS):
            clips = self.clips(source, range(start, min(start + _ROWS, last)))
            videos = torch.stack([to_pixels(clip.video()) for clip in clips])
            with torch.autocast("cpu", torch.bfloat16, enabled=CPU_HAS_BF16):  # half the time
                mode = vae.encode_inference(videos).mode()
            latents.append(vae.to_model(mode).half())
            backgrounds = np.stack([clip.background() for clip in clips])
            frames, height, width = mode.shape[2:]
            foreground.append(foreground_mask(videos, backgrounds, (frames, height, width)))
        return {"latents": torch.cat(latents), "foreground": torch.cat(foreground)}

    @staticmethod
    def _name(source: DataSource) -> str:
        frames, height, width = source.shape(0)
        return f"{frames}x{height}x{width}-{source.fingerprint}"


def _load(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{path} is damaged ({error})", "remove it: it is made again") from None


def foreground_mask(videos: Tensor, backgrounds: np.ndarray, grid: tuple[int, int, int]) -> Tensor:
    """Return where clips [B, 3, T, H, W] in [-1, 1] differ from their backgrounds [B, H, W, 3] in 0..255.

    The result is bool [B, 1, F, h, w] for latents of a `grid` (F, h, w). A place counts if any of its pixels, or of
    its neighbours', differs: a convolutional codec spreads what it encodes.
    """
    background = torch.from_numpy(backgrounds).permute(0, 3, 1, 2)[:, :, None].float() / 127.5 - 1
    differs = ((videos - background).abs().amax(1, keepdim=True) > _DIFFERENCE / 127.5).float()
    frames, height, width = grid
    mask = F.adaptive_max_pool3d(differs[:, :, :1], (1, height, width))
    if frames > 1:
        rest = F.adaptive_max_pool3d(differs[:, :, 1:], (frames - 1, height, width))
        mask = torch.cat([mask, rest], 2)
    return F.max_pool3d(mask, (1, 3, 3), stride=1, padding=(0, 1, 1)).bool()
