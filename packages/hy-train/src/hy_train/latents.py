"""Clips as latents: encoded once, cached on disk by what they depend on, read when a batch needs them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from hy_core.data import Clip, ClipShape, DataSource, clip_key
from hy_core.data.keys import cache_key
from hy_core.data.store import TensorStore
from hy_core.device import pick_device
from hy_core.dit.layers import CPU_HAS_BF16
from hy_core.errors import HyError, UsageError
from hy_core.training.batch import to_pixels
from rich.console import Console
from rich.progress import track
from torch import Tensor

from hy_train.recent import Recent

if TYPE_CHECKING:
    from hy_core.vae import VAE

_SHARD = 256  # clips of a file
_ROWS = 8  # clips encoded together
_DIFFERENCE = 30  # of 255, in any colour: less than that from the background is background
_CACHED_CLIPS = 16384  # clips held in memory: synthesising speech costs as much as rendering
_MEMORY = 1 << 30  # bytes of latents held in memory


class LatentCache:
    """Latents [C, F, h, w] of the clips of several sources, in the DiT's scale; float16 on disk.

    With each clip comes its foreground: the places that show more than the background. The key of a clip is made of
    the clip itself (`hy_core.data.clip_key`), its shape and the VAE, so that other clips, or another VAE, never give
    these latents, and clips that stay are not encoded again. An instance can be sent to other processes.
    """

    def __init__(
        self,
        sources: Sequence[DataSource],
        folder: Path,
        make_vae: Callable[[], VAE] | None,
        vae: str = "",
    ) -> None:
        """Take sources, the folder of the cache, a function that loads the VAE, and the VAE's fingerprint."""
        self.sources, self.folder, self._make_vae, self.vae = list(sources), folder, make_vae, vae
        self.store = TensorStore(folder)
        self.failed: list[dict[int, str]] = [{} for _ in self.sources]
        """Clips that can't be read, by index, with the reason; for each source."""
        self._recent = Recent(_MEMORY)
        self._clips: OrderedDict[tuple[int, int], Clip] = OrderedDict()

    def clip(self, source: int, index: int) -> Clip:
        """Return a clip of a source; it is held in memory once opened, its pixels aren't."""
        key = (source, index)
        if key not in self._clips:
            self._clips[key] = self.sources[source][index]
            if len(self._clips) > _CACHED_CLIPS:
                self._clips.popitem(last=False)
        self._clips.move_to_end(key)
        return self._clips[key]

    def clips(self, source: int, indices: Sequence[int] | np.ndarray) -> list[Clip]:
        """Return the clips of indices [B] of a source."""
        return [self.clip(source, int(index)) for index in indices]

    def keys(self, source: int, indices: Sequence[int] | np.ndarray) -> list[str]:
        """Return names of the clips of indices [B], which differ where the clips do."""
        return [clip_key(self.sources[source], int(index)) for index in indices]

    def shape(self, source: int) -> ClipShape:
        """Return the shape in pixels that all clips of a source have."""
        return self.sources[source].shape(0)

    def usable(self, source: int) -> np.ndarray:
        """Return the indices of the clips of a source that could be encoded, int [N]."""
        failed = self.failed[source]
        return np.array([index for index in range(len(self.sources[source])) if index not in failed], int)

    def get(self, source: int, indices: Sequence[int] | np.ndarray) -> Tensor:
        """Return latents [B, C, F, h, w], float32."""
        return torch.stack([self._item(source, int(index))["latents"] for index in indices]).float()

    def foreground(self, source: int, indices: Sequence[int] | np.ndarray) -> Tensor:
        """Return the foreground of clips, float32 [B, 1, F, h, w] of 0 and 1 (see `foreground_mask`)."""
        return torch.stack([self._item(source, int(index))["foreground"] for index in indices]).float()

    def fill(self) -> None:
        """Encode the clips that aren't in the cache yet; shards of 256 clips are written as they are ready.

        A clip that can't be read is left out, with one line about each reason in `failed`. `UsageError` for a source
        of which no clip can be read.
        """
        self.store.check()
        missing: list[tuple[int, list[int]]] = []
        for number, source in enumerate(self.sources):
            keys = [self._key(number, index) for index in range(len(source))]
            lacking = set(self.store.missing(keys))
            wanted = [index for index, key in enumerate(keys) if key in lacking]
            missing += [(number, wanted[first : first + _SHARD]) for first in range(0, len(wanted), _SHARD)]
        if missing:
            assert self._make_vae is not None
            device = pick_device()
            vae = self._make_vae().to(device).eval()
            console = Console(stderr=True)  # stdout is for the report
            for number, indices in track(missing, "encoding clips", console=console):
                self.store.add(self._encode(vae, number, indices))
        for number, source in enumerate(self.sources):
            if len(self.failed[number]) == len(source):
                reason = next(iter(self.failed[number].values()), "it is empty")
                raise UsageError(f"none of {len(source)} clips of a source can be read: {reason}")

    @torch.no_grad()
    def _encode(self, vae: VAE, source: int, indices: Sequence[int]) -> dict[str, dict[str, Tensor]]:
        items: dict[str, dict[str, Tensor]] = {}
        for first in range(0, len(indices), _ROWS):
            videos, backgrounds, keys = [], [], []
            for index in indices[first : first + _ROWS]:
                clip = self.clip(source, index)
                try:
                    video, background = to_pixels(clip.video()), clip.background()
                except HyError as error:
                    self.failed[source][index] = error.message
                    continue
                videos.append(video)
                backgrounds.append(background)
                keys.append(self._key(source, index))
            if not videos:
                continue
            pixels, device = torch.stack(videos), vae.quant_conv.weight.device
            # Half the time on a CPU that has it.
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type != "cpu" or CPU_HAS_BF16):
                mode = vae.encode_inference(pixels.to(device)).mode()
            latents = vae.to_model(mode).half().cpu()
            frames, height, width = mode.shape[2:]
            foreground = foreground_mask(pixels, np.stack(backgrounds), (frames, height, width))
            if not torch.isfinite(latents).all():
                raise HyError("the VAE gives NaN for a clip", "its weights are damaged")
            for row, key in enumerate(keys):
                items[key] = {"latents": latents[row].clone(), "foreground": foreground[row].clone()}
        return items

    def _key(self, source: int, index: int) -> str:
        found = self.sources[source]
        return cache_key(
            ["latents", clip_key(found, index), list(found.shape(index)), self.vae, "float16", CPU_HAS_BF16]
        )

    def _item(self, source: int, index: int) -> Mapping[str, Tensor]:
        return self._recent.get(self._key(source, index), self.store.get)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_make_vae": None, "_clips": OrderedDict()}


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
