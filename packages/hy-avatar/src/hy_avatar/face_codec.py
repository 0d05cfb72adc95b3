"""A face codec: a network that separates a face's dynamics from its identity and pose, and its files.

It is trained by `expression_extract_train`; its dynamics code is the expression latent.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from hy_core.errors import HyError, MissingError, UsageError
from hy_core.files import atomic
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from hy_avatar.expression_extract import DIMENSION
from hy_avatar.faces import FaceDetector, one_face, track


class FaceCodec(nn.Module):
    """An autoencoder of faces with appearance [C, S/8, S/8], identity, pose and dynamics codes.

    Pictures are [N, 3, S, S] in -1..1; S is a multiple of 8. Dynamics (`dynamics`, [N, D_e]) is the expression latent.
    """

    def __init__(
        self, size: int = 64, width: int = 32, dimension: int = DIMENSION, pose: int = 8, identity: int = 32
    ):
        super().__init__()
        if size % 8 or size < 32:
            raise UsageError(f"a face codec of {size} pixels is not possible", "a multiple of 8, from 32 on")
        self.settings = {
            "size": size,
            "width": width,
            "dimension": dimension,
            "pose": pose,
            "identity": identity,
        }
        self.size, self.dimension = size, dimension
        self.appearance = _Encoder(width, None)
        self.identity = _Encoder(width, identity)
        self.pose = _Encoder(width, pose)
        self.dynamics = _Encoder(width, dimension)
        codes = identity + pose + dimension
        channels = 4 * width
        self.mix = nn.ModuleList(_Mix(channels, codes) for _ in range(2))
        self.grow = nn.ModuleList(
            nn.Sequential(
                nn.Upsample(scale_factor=2, mode="nearest"),
                nn.Conv2d(channels // 2**k, channels // 2 ** (k + 1), 3, padding=1),
                nn.GroupNorm(4, channels // 2 ** (k + 1)),
                nn.SiLU(),
            )
            for k in range(3)
        )
        self.paint = nn.Conv2d(channels // 8, 3, 3, padding=1)

    def encode(self, pictures: Tensor) -> dict[str, Tensor]:
        """Return appearance [N, C, S/8, S/8] and identity, pose, dynamics [N, ...] of pictures [N, 3, S, S]."""
        return {
            name: getattr(self, name)(pictures) for name in ("appearance", "identity", "pose", "dynamics")
        }

    def render(self, appearance: Tensor, identity: Tensor, pose: Tensor, dynamics: Tensor) -> Tensor:
        """Decode faces [N, 3, S, S] from codes, which may come from different pictures."""
        codes = torch.cat([identity, pose, dynamics], dim=-1)
        hidden = appearance
        for mix in self.mix:
            hidden = mix(hidden, codes)
        for grow in self.grow:
            hidden = grow(hidden)
        return torch.tanh(self.paint(hidden))


class _Encoder(nn.Sequential):
    """Three convolutions of stride 2, then a map of 4 * width channels or a vector of `outputs` numbers."""

    def __init__(self, width: int, outputs: int | None) -> None:
        layers: list[nn.Module] = []
        channels = 3
        for k in range(3):
            layers += [
                nn.Conv2d(channels, width << k, 3, stride=2, padding=1),
                nn.GroupNorm(4, width << k),
                nn.SiLU(),
            ]
            channels = width << k
        if outputs is None:
            layers.append(nn.Conv2d(channels, channels, 3, padding=1))
        else:
            # Pooled to 4 x 4, because position matters.
            layers += [nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * channels, outputs)]
        super().__init__(*layers)


class _Mix(nn.Module):
    """A residual convolution whose channels are scaled by the codes and shifted at each of 8 x 8 places."""

    def __init__(self, channels: int, codes: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(4, channels)
        self.steer = nn.Linear(codes, 2 * channels)
        self.place = nn.Linear(codes, 8 * 64)
        self.spread = nn.Conv2d(8, channels, 1)
        self.conv = nn.Sequential(
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, hidden: Tensor, codes: Tensor) -> Tensor:
        scale, shift = self.steer(codes)[..., None, None].chunk(2, dim=1)
        places = self.spread(self.place(codes).reshape(-1, 8, 8, 8))
        if places.shape[-2:] != hidden.shape[-2:]:
            places = functional.interpolate(places, hidden.shape[-2:], mode="bilinear")
        return hidden + self.conv(self.norm(hidden) * (1 + scale) + shift + places)


class TrainedExtractor:
    """Expression latents by a trained `FaceCodec`: the dynamics code of the one face in the video.

    Without a `detector` the frames must be cropped to the face already.
    """

    def __init__(self, codec: FaceCodec, detector: FaceDetector | None = None, area: float = 1.4) -> None:
        self.codec, self.detector, self.area = codec.eval(), detector, area
        self.dimension = codec.dimension

    @classmethod
    def load(cls, path: Path | str, detector: FaceDetector | None = None) -> TrainedExtractor:
        """Read a codec that `save_codec` wrote."""
        return cls(load_codec(path), detector)

    @torch.no_grad()
    def extract(self, frames: np.ndarray) -> Tensor:
        """See `ExpressionExtractor.extract`.

        Frames are uint8 [F, H, W, 3]; the result is float32 [F, dimension].
        """
        boxes = None
        if self.detector is not None:
            boxes = one_face(track(frames, self.detector), len(frames), "the expression video").boxes
        return self.codes(crops(frames, self.codec.size, boxes, self.area))

    @torch.no_grad()
    def codes(self, pictures: Tensor) -> Tensor:
        """Return the dynamics codes [F, D_e] of faces [F, 3, S, S] in -1..1, float32 on the CPU."""
        device = next(self.codec.parameters()).device
        return torch.cat([self.codec.dynamics(part.to(device)) for part in pictures.split(64)]).float().cpu()


def crops(frames: np.ndarray, size: int, boxes: np.ndarray | None = None, area: float = 1.4) -> Tensor:
    """Cut square pictures [F, 3, size, size] in -1..1 around boxes [F, 4] (parts of the picture), times `area`."""
    pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 127.5 - 1
    if boxes is None:
        return functional.interpolate(pixels, (size, size), mode="bilinear", antialias=True)
    height, width = frames.shape[1:3]
    corners = torch.as_tensor(np.asarray(boxes), dtype=torch.float32) * torch.tensor([width, height] * 2)
    middle = (corners[:, :2] + corners[:, 2:]) / 2
    half = (corners[:, 2:] - corners[:, :2]).amax(1).clamp(min=2) / 2 * area
    steps = (torch.arange(size) + 0.5) / size * 2 - 1
    x = (middle[:, :1] + half[:, None] * steps) / width * 2 - 1
    y = (middle[:, 1:] + half[:, None] * steps) / height * 2 - 1
    grid = torch.stack([x[:, None].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)], dim=-1)
    return functional.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)


def save_codec(path: Path | str, codec: FaceCodec) -> None:
    """Write a codec's weights and sizes as safetensors."""
    tensors = {key: value.detach().contiguous().cpu() for key, value in codec.state_dict().items()}
    with atomic(Path(path)) as temporary:
        save_file(tensors, temporary, {"face_codec": json.dumps(codec.settings)})


def load_codec(path: Path | str) -> FaceCodec:
    """Read what `save_codec` wrote, strictly."""
    path = Path(path)
    if not path.is_file():
        raise MissingError(f"no such file: {path}")
    try:
        with safe_open(path, "pt") as file:
            settings = json.loads((file.metadata() or {})["face_codec"])
            codec = FaceCodec(**{name: int(value) for name, value in settings.items()})
            codec.load_state_dict({key: file.get_tensor(key) for key in file.keys()})
    except (SafetensorError, KeyError, TypeError, ValueError, AttributeError, RuntimeError) as problem:
        raise HyError(f"{path} is no face codec ({str(problem)[:80]})") from problem
    return codec
