"""Pictures to vectors: CLIP for the paper's model (4 fps), SigLIP 2 for Foley (8 fps)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from hy_core.errors import MissingError
from hy_core.text.pretrained import load_strictly, read_config
from PIL import Image
from torch import Tensor, nn

from hy_audio.encoders.frames import CLIP_MEAN, CLIP_STD, Preparation
from hy_audio.encoders.loaded import Loaded

#: Frames a second that the paper's model and Foley see.
CLIP_RATE, SIGLIP_RATE = 4.0, 8.0


class VisionEncoder(Loaded):
    """CLIP's or SigLIP's picture half: one vector a frame, the pooled one before any projection.

    with VisionEncoder.load(folder, "cuda") as vision:
        features = vision.encode(frames)
    """

    def __init__(self, network: nn.Module, preparation: Preparation) -> None:
        super().__init__(network)
        self.preparation = preparation

    @classmethod
    def load(
        cls, folder: Path | str, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
    ) -> VisionEncoder:
        """Read a folder that holds a CLIP or a SigLIP of fixed size, whole or its picture half alone.

        `dtype` None keeps the files'. MissingError for another model, or if a tensor isn't there.
        """
        from transformers import CLIPVisionModel, SiglipVisionModel

        folder = Path(folder)
        config = read_config(folder)
        kind = config.model_type.removesuffix("_vision_model")
        config = getattr(config, "vision_config", config)
        if kind == "clip":
            network = load_strictly(CLIPVisionModel, folder, device, dtype, config=config)
            crop = Preparation(config.image_size, "crop", Image.Resampling.BICUBIC, CLIP_MEAN, CLIP_STD)
            return cls(network, crop)
        if kind == "siglip":
            network = load_strictly(SiglipVisionModel, folder, device, dtype, config=config)
            return cls(network, Preparation(config.image_size, "square", Image.Resampling.BILINEAR))
        raise MissingError(
            f"{folder} holds a {config.model_type} model", "the picture encoder is a CLIP or a SigLIP"
        )

    @torch.no_grad()
    def encode(self, frames: np.ndarray, batch: int = 16) -> Tensor:
        """Features [T,D] of uint8 frames [T,H,W,3], `batch` at a time, on the encoder's device."""
        found = []
        for first in range(0, len(frames), batch):
            pixels = self.preparation(frames[first : first + batch]).to(self.device, self.dtype)
            found.append(self.network(pixel_values=pixels).pooler_output)
        return torch.cat(found)
