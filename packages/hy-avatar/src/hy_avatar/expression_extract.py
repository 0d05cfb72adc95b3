"""What a face expresses, as numbers that don't say whose face it is.

VASA-1's latent has no public weights and its size isn't published (facts, section 1.2), so that what counts here is
the interface: `ExpressionExtractor`. There are two kinds: a network of our own, trained by the two losses that part
dynamics from pose and identity (`expression_extract_train`), and landmark residuals for where nothing is trained.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from hy_core.errors import HyError, MissingError, UsageError
from hy_core.files import atomic
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from hy_avatar.faces import FaceDetector, one_face, smooth, track

DIMENSION = 128  # D_e, ours: none is published


class ExpressionExtractor(Protocol):
    """Anything that turns a face's video into one vector for each frame."""

    dimension: int

    def extract(self, frames: np.ndarray) -> Tensor:
        """Return [F, D_e] for frames uint8 [F, H, W, 3]; `HyError` when there is no face in any of them."""
        ...


class Landmarker(Protocol):
    """Anything that finds the points of a face."""

    def landmarks(self, frames: np.ndarray) -> np.ndarray:
        """Return [F, P, 2] in pixels for frames uint8 [F, H, W, 3]; NaN where there is no face."""
        ...


# -- landmarks --------------------------------------------------------------------------------------------


def residuals(points: np.ndarray, neutral: np.ndarray | None = None) -> np.ndarray:
    """Take place, size, turn and the person's own shape away from points [F, P, 2]; what is left is expression.

    Each frame is laid on `neutral` [P, 2] (the mean of the clip's aligned frames unless given) by its best
    similarity transform (Procrustes), and the difference is divided by the neutral shape's size (root mean square
    distance from its middle). A clip's own neutral shape of 68 points is turned upright by its eyes. Some identity
    leaks through: a stand-in. Frames without points are filled from their neighbours in time.
    """
    points, there = filled(points)
    shapes = points - points.mean(1, keepdims=True)
    if neutral is None:
        neutral = shapes[there][0]
        for _ in range(3):
            neutral = _laid(shapes, neutral).mean(0)
        neutral = _upright(neutral)
    else:
        neutral = np.asarray(neutral, np.float64) - np.mean(neutral, axis=0)
    size = np.sqrt((neutral**2).sum(1).mean())
    if size < 1e-9:
        raise HyError("the face's points lie all in one place")
    return (_laid(shapes, neutral) - neutral) / size


def filled(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return points [F, P, 2] with frames that lack any taken from their neighbours in time, and which were whole."""
    points = np.asarray(points, np.float64)
    there = np.isfinite(points).all((1, 2))
    if not there.any():
        raise HyError(
            "no face was found in any frame", "an expression is taken from a video that shows a face"
        )
    if not there.all():
        times = np.arange(len(points))
        flat = points.reshape(len(points), -1)
        flat = np.stack([np.interp(times, times[there], column[there]) for column in flat.T], axis=1)
        points = flat.reshape(points.shape)
    return points, there


def _calm() -> np.ndarray:
    """A calm face of 68 points, [68, 2], in distances between the eyes from their middle: usual proportions."""
    around, along = np.radians(180 - np.linspace(0, 180, 17)), np.linspace(-1, 1, 5)
    lids, lips = np.radians([180, 240, 300, 0, 60, 120]), np.linspace(-1, 1, 7)
    inner = np.linspace(-0.8, 0.8, 5)
    upper, lower = -0.1 * np.sqrt(1 - lips**2), 0.1 * np.sqrt(1 - lips**2)
    parts = [
        (1.15 * np.cos(around), 1.75 * np.sin(around)),
        *((side * 0.5 + 0.3 * along, np.full(5, -0.4)) for side in (-1, 1)),
        (np.zeros(4), np.linspace(0, 0.55, 4)),
        (0.12 * along, np.full(5, NOSE)),
        *((side * 0.5 + 0.2 * np.cos(lids), 0.1 * np.sin(lids)) for side in (-1, 1)),
        (0.45 * lips, 1.2 + upper),
        (0.45 * lips[-2:0:-1], 1.2 + lower[1:-1]),
        (0.45 * inner, np.full(5, 1.2)),
        (0.45 * inner[-2:0:-1], np.full(3, 1.2)),
    ]
    return np.concatenate([np.stack(np.broadcast_arrays(x, y), -1) for x, y in parts])


def against_calm(points: np.ndarray) -> np.ndarray:
    """How 68 points [F, 68, 2] differ from a calm face, [F, 68, 2]: also of a face that smiles all the time.

    Each frame is turned until the eyes are level; lengths across are in distances between the eyes, lengths down in
    those from the eyes to the nose's base. So place, size and turn go, and with the two scales most of a face's
    proportions.
    """
    points, _ = filled(points)
    right, left = points[:, 36:42].mean(1), points[:, 42:48].mean(1)
    across = left - right
    apart = np.maximum(np.linalg.norm(across, axis=1), 1e-9)
    x = across / apart[:, None]
    y = np.stack([-x[:, 1], x[:, 0]], -1)
    from_eyes = points - ((left + right) / 2)[:, None]
    wide = np.einsum("fpc,fc->fp", from_eyes, x) / apart[:, None]
    deep = np.einsum("fpc,fc->fp", from_eyes, y)
    nose = np.median(deep[:, 33])
    if nose < 1e-3 * np.median(apart):
        raise HyError("the face's points lie all in one place")
    return np.stack([wide, deep * (NOSE / nose)], -1) - CALM


def latent_of(points: np.ndarray, dimension: int = DIMENSION, smoothing: float = 0.0) -> Tensor:
    """The expression latent [F, D_e] of points [F, P, 2] by landmarks alone; of 68 points against a calm face."""
    values = against_calm(points) if np.shape(points)[1] == 68 else residuals(points)
    values = smooth(values, smoothing).reshape(len(values), -1)
    return torch.from_numpy(values @ _projection(values.shape[1], dimension)).float()


NOSE = 0.75  # of the nose's base below the eyes, in their distance
CALM = _calm()


def _upright(shape: np.ndarray) -> np.ndarray:
    """Turn a shape so that the line through the eyes is level; other sets of points than iBUG's 68 stay."""
    if len(shape) != 68:
        return shape
    x, y = shape[42:48].mean(0) - shape[36:42].mean(0)
    length = max(float(np.hypot(x, y)), 1e-12)
    return shape @ np.array([[x, -y], [y, x]]) / length


def _laid(shapes: np.ndarray, onto: np.ndarray) -> np.ndarray:
    """Turn and scale centred shapes [F, P, 2] to fit `onto` [P, 2] best; the plane as complex numbers."""
    flat, target = shapes[..., 0] + 1j * shapes[..., 1], onto[:, 0] + 1j * onto[:, 1]
    factor = (flat.conj() * target).sum(1) / np.maximum((np.abs(flat) ** 2).sum(1), 1e-12)
    fitted = flat * factor[:, None]
    return np.stack([fitted.real, fitted.imag], axis=-1)


class LandmarkExtractor:
    """Landmark residuals, brought to D_e numbers by a fixed projection with orthonormal rows.

    Without a trained network only; the projection depends on the number of points and `dimension` alone.
    """

    def __init__(self, landmarker: Landmarker, dimension: int = DIMENSION, smoothing: float = 0.0) -> None:
        self.landmarker, self.dimension, self.smoothing = landmarker, dimension, smoothing

    def extract(self, frames: np.ndarray) -> Tensor:
        """See `ExpressionExtractor.extract`."""
        return latent_of(self.landmarker.landmarks(frames), self.dimension, self.smoothing)


def _projection(inputs: int, outputs: int) -> np.ndarray:
    """Return a fixed matrix [inputs, outputs] that keeps lengths as far as outputs allow."""
    drawn = np.random.default_rng(inputs * 100_003 + outputs).normal(size=(max(inputs, outputs),) * 2)
    orthonormal, _ = np.linalg.qr(drawn)
    return orthonormal[:inputs, :outputs]


# -- a trained network ------------------------------------------------------------------------------------


class FaceCodec(nn.Module):
    """A face as appearance [C, 8, 8], identity, pose and dynamics codes, and a decoder that draws it again.

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
        """Draw faces [N, 3, S, S] from codes that may come from different pictures."""
        codes = torch.cat([identity, pose, dynamics], dim=-1)
        hidden = appearance
        for mix in self.mix:
            hidden = mix(hidden, codes)
        for grow in self.grow:
            hidden = grow(hidden)
        return torch.tanh(self.paint(hidden))


class _Encoder(nn.Sequential):
    """Three halvings; then a map of 4 * width channels, or one vector of `outputs` numbers."""

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
            # Where something is matters, so that the map is pooled to 4 x 4 and not to one value.
            layers += [nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * channels, outputs)]
        super().__init__(*layers)


class _Mix(nn.Module):
    """A residual convolution whose channels the codes scale and shift, at each of 8 x 8 places differently."""

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
    """The dynamics code of a trained `FaceCodec`, of the one face in the picture.

    `detector` None takes the frames as they are, for clips that are cropped to a face already.
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
        """See `ExpressionExtractor.extract`."""
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
