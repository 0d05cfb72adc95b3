"""Fill caches of latents and of text features with what they lack."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import torch
from hy_core.data import ClipShape
from hy_core.data.store import TensorStore
from hy_core.errors import HyError, MemoryLimitError, is_out_of_memory
from torch import Tensor

from hy_data.cache.keys import latent_key, text_key

if TYPE_CHECKING:
    import numpy as np
    from hy_core.text import TextEncoder
    from hy_core.vae import VAE
    from hy_core.vae.tiling import Tiling

    from hy_data.source import SetClip

T = TypeVar("T")

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
_SHARD_BYTES = 64 << 20
_SHARD_SECONDS = 60.0  # of work that a killed process loses at most, beside the batch in hand
_TEXTS = 32  # encoded together


@dataclass
class Filled:
    """What a fill did: keys that were there, that were computed, and clips that failed with the reason."""

    found: int = 0
    computed: int = 0
    failed: dict[str, str] = field(default_factory=dict)


def fill_latents(
    store: TensorStore,
    clips: Iterable[SetClip],
    vae: Callable[[], VAE],
    fingerprint: str,
    *,
    rows: int = 4,
    dtype: str = "float16",
    tiling: Tiling | None = None,
    workers: int = 2,
    progress: Callable[[int], None] = lambda _: None,
) -> Filled:
    """Encode the clips whose latents the store lacks, `rows` of one shape at a time; the VAE is loaded if needed.

    An item is `latents` [C, F, h, w], the mode of the posterior in the DiT's scale. Clips are decoded by `workers`
    threads while others are encoded. A clip that can't be decoded is a row in `Filled.failed`. `HyError` for latents
    that are not finite, `MemoryLimitError` if a batch doesn't fit.
    """
    done = Filled()
    by_key: dict[str, SetClip] = {}
    total = 0
    for clip in clips:
        total += 1
        by_key.setdefault(latent_key(clip, fingerprint, dtype), clip)
    missing = store.missing(by_key)
    done.found = len(by_key) - len(missing)
    progress(total - len(missing))
    if not missing:
        return done
    network = vae()
    writer = _Writer(store)
    with ThreadPoolExecutor(workers) as pool, torch.inference_mode():
        for batch in _ahead(pool, _batches(missing, by_key, rows), by_key):
            good = {key: video for key, video in batch if not isinstance(video, HyError)}
            done.failed |= {
                by_key[key].id: video.message for key, video in batch if isinstance(video, HyError)
            }
            if good:
                latents = _encoded(network, good, tiling)
                for (key, _), row in zip(good.items(), latents, strict=True):
                    writer.add(key, {"latents": row.to(DTYPES[dtype]).cpu().clone()})
                done.computed += len(good)
            progress(len(batch))
    writer.flush()
    return done


def fill_texts(
    store: TensorStore,
    texts: Iterable[tuple[str, bool]],
    encoder: Callable[[], TextEncoder],
    fingerprint: str,
    *,
    dtype: str = "float16",
    progress: Callable[[int], None] = lambda _: None,
) -> Filled:
    """Encode the texts that the store lacks, each (text, whether for a picture) once.

    An item is `states` [L, D] of the language model, without padding, and `pooled` [D] of CLIP. `HyError` for features
    that are not finite.
    """
    done = Filled()
    by_key = {text_key(text, picture, fingerprint, dtype): (text, picture) for text, picture in texts}
    missing = store.missing(by_key)
    done.found = len(by_key) - len(missing)
    progress(done.found)
    if not missing:
        return done
    writer = _Writer(store)
    with encoder() as model, torch.inference_mode():
        for picture in (False, True):
            keys = iter([key for key in missing if by_key[key][1] == picture])
            while part := list(islice(keys, _TEXTS)):
                encoded = model.encode([by_key[key][0] for key in part], picture)
                for key, states, pooled in zip(part, encoded.text, encoded.pooled, strict=True):
                    _check_finite(states, "the text encoder", repr(by_key[key][0][:40]))
                    item = {"states": states, "pooled": pooled}
                    writer.add(key, {name: one.to(DTYPES[dtype]).cpu().clone() for name, one in item.items()})
                done.computed += len(part)
                progress(len(part))
    writer.flush()
    return done


class _Writer:
    """Collects items and writes a shard when there are 64 MB or a minute of them, and when an error passes."""

    def __init__(self, store: TensorStore) -> None:
        self.store, self.items, self.bytes = store, dict[str, Mapping[str, Tensor]](), 0
        self.begin = time.monotonic()

    def add(self, key: str, item: Mapping[str, Tensor]) -> None:
        self.items[key] = item
        self.bytes += sum(one.nbytes for one in item.values())
        if self.bytes >= _SHARD_BYTES or time.monotonic() - self.begin > _SHARD_SECONDS:
            self.flush()

    def flush(self) -> None:
        self.store.add(self.items)
        self.items, self.bytes, self.begin = {}, 0, time.monotonic()


def _batches(keys: Sequence[str], clips: Mapping[str, SetClip], rows: int) -> Iterator[list[str]]:
    by_shape: dict[ClipShape, list[str]] = {}
    for key in keys:
        by_shape.setdefault(clips[key].shape, []).append(key)
    for shape in sorted(by_shape, key=lambda one: -one.frames * one.height * one.width):  # the largest first
        for first in range(0, len(by_shape[shape]), rows):
            yield by_shape[shape][first : first + rows]


def _ahead(
    pool: ThreadPoolExecutor, batches: Iterator[list[str]], clips: Mapping[str, SetClip]
) -> Iterator[list[tuple[str, np.ndarray | HyError]]]:
    """Yield batches with their frames; the next batch is decoded meanwhile."""

    def start(keys: list[str] | None) -> list[tuple[str, object]]:
        return [(key, pool.submit(_decoded, clips[key])) for key in keys or ()]

    waiting = start(next(batches, None))
    while waiting:
        following = start(next(batches, None))
        yield [(key, future.result()) for key, future in waiting]  # type: ignore[attr-defined]
        waiting = following


def _decoded(clip: SetClip) -> np.ndarray | HyError:
    try:
        return clip.video()
    except HyError as error:
        return error


def _encoded(vae: VAE, videos: Mapping[str, np.ndarray], tiling: Tiling | None) -> Tensor:
    weight = vae.quant_conv.weight
    pixels = torch.stack([torch.from_numpy(video) for video in videos.values()]).to(weight.device)
    try:
        pixels = pixels.permute(0, 4, 1, 2, 3).to(weight.dtype) / 127.5 - 1
        latents = vae.to_model(vae.encode_inference(pixels, tiling).mode())
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        shape = "x".join(map(str, next(iter(videos.values())).shape[:3]))
        raise MemoryLimitError(
            f"{len(videos)} clips of {shape} don't fit into memory",
            "use smaller --rows, or --tiling official",
        ) from error
    _check_finite(latents, "the VAE", f"a batch of {len(videos)} clips")
    return latents


def _check_finite(tensor: Tensor, what: str, where: str) -> None:
    if not torch.isfinite(tensor).all():
        raise HyError(f"{what} gives NaN for {where}", "its weights are damaged, or need --precision fp32")
