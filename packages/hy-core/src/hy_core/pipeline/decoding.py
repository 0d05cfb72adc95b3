"""From latents to frames: the tiling, the decoder, and the buffer of a clip's frames."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hy_core.device import free_memory
from hy_core.estimate import decoder_bytes
from hy_core.pipeline.checks import finite, not_a_number
from hy_core.pipeline.progress import Sink
from hy_core.request import Request
from hy_core.vae import Tiling

if TYPE_CHECKING:
    from hy_core.media import Writer
    from hy_core.models import Model


class ClipBuffer:
    """The frames of one clip: passed to a writer as they are decoded, or kept."""

    def __init__(self, request: Request, index: int, files: ExitStack) -> None:
        self.request, self.index, self.files = request, index, files
        self.tiling = request.tiling
        self.record: dict[str, Any] | None = None
        self.writer: Writer | None = None
        self.parts: list[np.ndarray] = []
        self.last_frames: np.ndarray | None = None

    def open_writer(self, record: dict[str, Any], sink: Sink | None) -> None:
        """Open the sink's writer, if it has one for this clip; it is closed with the other `files`."""
        self.record = record
        if sink is not None and (writer := sink(self.index, record)) is not None:
            self.writer = self.files.enter_context(writer)

    def add(self, frames: np.ndarray, overlap: int) -> None:
        """Append frames, uint8 [F, H, W, 3]; the clip's last `overlap` frames become `last_frames`."""
        if self.writer is None:
            self.parts.append(frames)
        else:
            self.writer.add(frames)
        if overlap:
            joined = (
                frames if self.last_frames is None else np.concatenate([self.last_frames, frames[-overlap:]])
            )
            self.last_frames = joined[-overlap:].copy()  # a view would keep all of it in memory

    def kept_frames(self) -> np.ndarray | None:
        """All frames, uint8 [F, H, W, 3], if they were kept."""
        return np.concatenate(self.parts) if self.parts else None


def decoded(model: Model, latents: Tensor, tiling: str) -> Iterator[np.ndarray]:
    """The frames of latents [1, C, F, h, w] in the model's scale, uint8 [f, H, W, 3] at a time; HyError for NaN."""
    for pixels in model.vae.stream(vae_latents(model, latents), Tiling.named(tiling, model.vae.config)):
        if not finite(pixels):
            raise not_a_number(model.vae, "the decoder")
        yield to_frames(pixels[0])


def tiling_of(request: Request, model: Model) -> str:
    """The name of a clip's tiling; "auto" is "off" if decoding whole fits into memory, else the model's own.

    Tiles change the picture (core facts, trap 4), so a result's record names those that were used.
    """
    if request.tiling != "auto":
        return request.tiling
    config = model.vae.config
    latent = config.latent_size(request.frames, request.height, request.width)
    needed = decoder_bytes(config, latent, next(model.vae.parameters()).element_size())
    return "off" if needed <= free_memory(model.device) else model.tiling


def tiling_for(request: Request, model: Model, frames: int) -> Tiling | None:
    """The tiling of a clip of `frames` frames in the request's size."""
    return Tiling.named(tiling_of(replace(request, frames=frames), model), model.vae.config)


def vae_latents(model: Model, latents: Tensor) -> Tensor:
    """Latents in the scale, dtype and device of the VAE's weights."""
    return model.vae.from_model(latents).to(next(model.vae.parameters()))


def preview(model: Model, clean: Tensor) -> np.ndarray:
    """The middle frame of a clip, uint8 [H, W, 3], from its estimated clean latents [B, C, F, h, w]."""
    middle = clean.shape[2] // 2
    with torch.inference_mode():
        (pixels,) = model.vae.stream(vae_latents(model, clean[:1, :, middle : middle + 1]), None)
        out: np.ndarray = to_frames(pixels[0])[0]
        return out


def to_frames(pixels: Tensor) -> np.ndarray:
    """Pixels [3, F, H, W] in -1..1 to uint8 [F, H, W, 3], rounded to the nearest."""
    frames = ((pixels.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    array: np.ndarray = frames.permute(1, 2, 3, 0).cpu().numpy()
    return array
