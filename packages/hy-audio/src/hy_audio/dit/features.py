"""Features of frames for the tri-stream model: by the encoder in its folder, or from small pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hy_core.errors import HyError
from torch import Tensor

from hy_audio.dit.config import AudioDiTConfig
from hy_audio.dit.model_config import AudioModelConfig
from hy_audio.encoders.pixels import PixelFeatures
from hy_audio.encoders.vision import VisionEncoder
from hy_audio.frame_sampler import FrameSampler


@dataclass(frozen=True)
class FeatureExtractor(FrameSampler):
    """A frame sampler and the encoder of its frames: n prepared frames to features [n, D]."""

    encode: Callable[[Sequence[Any]], Tensor]


def feature_extractors(
    folder: Path, config: AudioDiTConfig, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> dict[str, FeatureExtractor]:
    """Return the extractors of a model's folder: "visual", and "sync" if the network has timing features.

    `HyError` if their features don't have the sizes that the network has.
    """
    small = AudioModelConfig.read(folder).pixels
    if small is None:
        vision = VisionEncoder.load(folder / "clip", device, dtype)

        def encode(pictures: Sequence[Any]) -> Tensor:
            return vision.encode(np.stack(pictures))

        return {"visual": FeatureExtractor(config.visual_rate, vision.preparation.fit_picture, encode)}
    pixels = PixelFeatures(small.colours, small.motion)
    if pixels.size != config.visual_dim or config.sync_dim not in (0, pixels.size):
        raise HyError(
            f"the pixels of {folder} have {pixels.size} numbers, but the network reads {config.visual_dim} "
            f"(and {config.sync_dim} for timing)",
            "set visual_dim, and sync_dim or 0, to what the pixels have",
        )
    found = {"visual": FeatureExtractor(config.visual_rate, pixels.prepare, pixels.encode)}
    if config.sync_dim:
        found["sync"] = FeatureExtractor(small.sync_rate, pixels.prepare, pixels.encode)
    return found
