"""CLIP and X-CLIP from a folder in the format of transformers: image features averaged, or features of a video.

Sources: Radford et al. 2021 (CLIP), Ni et al. 2022 (X-CLIP); the classes are transformers' own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hy_core.device import pick_device
from hy_core.errors import MissingError, UsageError
from torch.nn import functional

# The means and deviations of CLIP's training pictures; a preprocessor_config.json in the folder overrides them.
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_DEVIATION = (0.26862954, 0.26130258, 0.27577711)


def load(kind: str, folder: Path, device: str = "auto") -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from frames, uint8 [T, H, W, 3], to a unit vector, float32 [D].

    `MissingError` for no such folder, `UsageError` for one that holds no model of this kind.
    """
    from safetensors import SafetensorError
    from transformers import CLIPModel, XCLIPModel

    folder = folder.expanduser()
    if not (folder / "config.json").is_file():
        raise MissingError(
            f"{folder} holds no transformers model (no config.json)", "see [stage.embedding] weights"
        )
    cls: Any = {"clip": CLIPModel, "xclip": XCLIPModel}[kind]
    try:
        # Never unpickled: a .bin file could run code.
        model = cls.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, RuntimeError, TypeError, SafetensorError) as error:
        reason = str(error).splitlines()[0][:120]
        raise UsageError(f"{folder} can't be loaded as {cls.__name__}: {reason}") from error
    return _Embedder(kind, model.eval().requires_grad_(False), _normalisation(folder), pick_device(device))


class _Embedder:
    def __init__(
        self,
        kind: str,
        model: Any,
        normalisation: tuple[tuple[float, ...], tuple[float, ...]],
        device: torch.device,
    ) -> None:
        self.kind, self.device, self.model = kind, device, model.to(device)
        vision = model.config.vision_config
        self.size = int(vision.image_size)
        self.frames = int(vision.num_frames) if kind == "xclip" else 0
        self.mean, self.deviation = (torch.tensor(one, device=device)[:, None, None] for one in normalisation)

    @torch.inference_mode()
    def __call__(self, frames: np.ndarray) -> np.ndarray:
        if self.frames:
            frames = frames[np.linspace(0, len(frames) - 1, self.frames).round().astype(int)]
        pixels = (
            torch.from_numpy(np.ascontiguousarray(frames)).to(self.device).permute(0, 3, 1, 2).float() / 255
        )
        scale = self.size / min(pixels.shape[2:])
        size = [max(self.size, round(side * scale)) for side in pixels.shape[2:]]
        pixels = functional.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(0, 1)
        top, left = ((side - self.size) // 2 for side in size)
        pixels = pixels[:, :, top : top + self.size, left : left + self.size]
        pixels = (pixels - self.mean) / self.deviation
        if self.kind == "xclip":
            found = _tensor(self.model.get_video_features(pixel_values=pixels[None]))[0]
        else:
            found = functional.normalize(
                _tensor(self.model.get_image_features(pixel_values=pixels)), dim=-1
            ).mean(0)
        vector: np.ndarray = functional.normalize(found.float(), dim=-1).cpu().numpy()
        return vector


def _tensor(found: Any) -> torch.Tensor:
    features: torch.Tensor = getattr(found, "pooler_output", found)
    return features


def _normalisation(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    from hy_core.tables import read_json

    file = folder / "preprocessor_config.json"
    values = read_json(file) if file.is_file() else {}
    found = []
    for key, default in (("image_mean", _MEAN), ("image_std", _DEVIATION)):
        value = values.get(key, default)
        if not (
            isinstance(value, list | tuple)
            and len(value) == 3
            and all(isinstance(one, float | int) for one in value)
        ):
            raise UsageError(f"{file}: {key} needs three numbers")
        found.append(tuple(float(one) for one in value))
    if min(found[1]) <= 0:
        raise UsageError(f"{file}: image_std needs three numbers above 0")
    return found[0], found[1]
