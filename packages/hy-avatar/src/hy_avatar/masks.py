"""Masks of where drivers act: from boxes, points or a file, and on latent frames and tokens.

Masks over pixel frames are float32 [F, H, W] in 0..1. A latent frame is one pixel frame at first and four after that,
as the causal VAE groups them, and its mask is their maximum, so that a face in one of them is kept.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from hy_core import media
from hy_core.errors import HyError, UsageError
from hy_core.media import timeline
from torch import Tensor
from torch.nn import functional

from hy_avatar import arrays
from hy_avatar.faces import FaceTrack, smooth
from hy_avatar.speakers import disjoint

SHAPES = ("box", "ellipse")


def from_boxes(
    boxes: np.ndarray, height: int, width: int, area: float = 1.0, shape: str = "box"
) -> np.ndarray:
    """Draw boxes [F, 4] (parts of the picture) as masks [F, H, W].

    `area` is a factor on width and height about the middle; the released sampler's is 3.0.
    """
    if shape not in SHAPES:
        raise UsageError(f"no mask shape {shape!r}", f"one of {', '.join(SHAPES)}")
    if area <= 0:
        raise UsageError(f"the area factor {area} is not above 0")
    boxes = np.asarray(boxes, np.float64)
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2 * [width, height]
    half = np.maximum((boxes[:, 2:] - boxes[:, :2]) / 2 * [width, height] * area, 0.5)
    x = np.arange(width) + 0.5 - middle[:, 0, None]
    y = np.arange(height) + 0.5 - middle[:, 1, None]
    if shape == "box":
        across = np.clip(half[:, :1] + 0.5 - np.abs(x), 0, 1)
        down = np.clip(half[:, 1:] + 0.5 - np.abs(y), 0, 1)
        return (down[:, :, None] * across[:, None, :]).astype(np.float32)
    reach = np.hypot((x / half[:, :1])[:, None, :], (y / half[:, 1:])[:, :, None])
    edge = half.min(1)[:, None, None]
    return np.clip(0.5 + (1 - reach) * edge, 0, 1).astype(np.float32)


def from_track(
    face: FaceTrack, height: int, width: int, area: float = 1.0, shape: str = "box", away: float = 0.0
) -> np.ndarray:
    """Draw a tracked face [F, H, W]; frames without it have the value `away` everywhere."""
    masks = from_boxes(face.boxes, height, width, area, shape)
    masks[~face.present()] = away
    return masks


def from_points(points: np.ndarray, height: int, width: int, grow: float = 1.0) -> np.ndarray:
    """Fill the convex hull of each frame's points [F, P, 2] in pixels: a segmentation of the face by its outline.

    `grow` stretches it about its middle; frames without points (NaN) are empty.
    """
    from PIL import Image, ImageDraw

    masks = np.zeros((len(points), height, width), np.float32)
    for mask, shape in zip(masks, np.asarray(points, np.float64), strict=True):
        shape = shape[np.isfinite(shape).all(1)]
        if len(shape) < 3:
            continue
        outline = _hull(shape)
        middle = outline.mean(0)
        outline = middle + grow * (outline - middle)
        picture = Image.new("L", (4 * width, 4 * height))  # four times finer, for a smooth edge
        ImageDraw.Draw(picture).polygon([tuple(point) for point in 4 * outline], fill=255)
        mask[:] = np.asarray(picture, np.float32).reshape(height, 4, width, 4).mean((1, 3)) / 255
    return masks


def _hull(points: np.ndarray) -> np.ndarray:
    """Return the convex hull's corners in order (A. M. Andrew's monotone chain, 1979)."""
    points = points[np.lexsort((points[:, 1], points[:, 0]))]

    def chain(ordered: np.ndarray) -> list[np.ndarray]:
        kept: list[np.ndarray] = []
        for point in ordered:
            while len(kept) > 1:
                a, b = kept[-1] - kept[-2], point - kept[-2]
                if a[0] * b[1] - a[1] * b[0] > 0:
                    break
                kept.pop()
            kept.append(point)
        return kept[:-1]

    return np.array(chain(points) + chain(points[::-1]))


def soften(masks: np.ndarray, edge: float) -> np.ndarray:
    """Give masks a soft edge of about `edge` pixels inwards; what was 0 stays 0.

    Masks are float32 [..., H, W] in [0, 1]; so is the result.
    """
    if edge < 0:
        raise UsageError(f"a soft edge of {edge} pixels is not possible")
    if edge == 0:
        return masks
    soft = masks
    for axis in (1, 2):
        moved = np.moveaxis(soft, axis, 0)
        soft = np.moveaxis(smooth(moved, edge / 2), 0, axis)
    # Blur runs both ways: only its inner half is kept, from 0.5 at the old edge.
    return (np.clip(2 * soft - 1, 0, 1) * (masks > 0)).astype(np.float32)


def latent_frames(frames: int) -> int:
    """Return how many latent frames so many pixel frames make; `UsageError` unless they are 1 + 4k."""
    if frames < 1 or (frames - 1) % 4:
        raise UsageError(f"{frames} frames of a mask don't make latent frames", "they must be 1 + 4k")
    return (frames - 1) // 4 + 1


def to_latent(masks: np.ndarray | Tensor, height: int, width: int, most: bool = False) -> Tensor:
    """Reduce masks [..., F, H, W] to latent frames of height x width: [..., T, h, w].

    In time by the maximum of each group, frame 0 alone and then four by four; in space by the mean, or with `most` by
    the maximum.
    """
    values = torch.as_tensor(masks).float()
    if not torch.isfinite(values).all():
        raise UsageError("the mask has values that are not finite")
    *lead, frames, rows, columns = values.shape
    groups = latent_frames(frames)
    first, rest = values[..., :1, :, :], values[..., 1:, :, :]
    if groups > 1:
        rest = rest.reshape(*lead, groups - 1, 4, rows, columns).amax(-3)
        first = torch.cat([first, rest], dim=-3)
    flat = first.reshape(1, -1, rows, columns)
    reduce = functional.adaptive_max_pool2d if most else functional.adaptive_avg_pool2d
    return reduce(flat, (height, width)).reshape(*lead, groups, height, width)


def to_tokens(faces: np.ndarray, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return masks of K faces [K, F, H, W] on tokens, disjoint: [K, T, S, 1], and a mask of all else [T, S, 1].

    A token takes the maximum of its places: tokens may be as large as a face, and a mean would weaken the driver. So a
    token with a face and something else is in both results. A token with parts of two faces belongs to the larger one.
    """
    open_ = disjoint(to_latent(faces, *grid, most=True), to_latent(faces, *grid))
    rest = to_latent(1 - faces.max(0), *grid, most=True)
    return open_.flatten(2).unsqueeze(-1), rest.flatten(1).unsqueeze(-1)


def inner(mask: np.ndarray, size: tuple[int, int]) -> Tensor:
    """Return the latents [T, h, w], 0 or 1, inside a mask [F, H, W]: those covered at least half as much as any.

    Latents at its edge are left out, because a change there is visible outside of it.
    """
    share = to_latent(mask, *size)
    return ((share > 0) & (share >= share.amax((-2, -1), keepdim=True) / 2)).float()


def read(path: Path | str, frames: int, height: int, width: int, fps: float) -> np.ndarray:
    """Read masks of a clip's frames, float32 [frames, height, width] in 0..1, where 1 is where a driver acts.

    The file is a picture (for all frames), a video, read by its times, or an array [F, H, W] in 0..1 (.npy, .npz) with
    one mask for each frame, or at the rate of an `fps` in the file. UsageError for one that is shorter than the clip;
    HyError for one that can't be read.
    """
    path = Path(path)
    if path.suffix.lower() in (".npy", ".npz"):
        masks = _read_array(path, frames, fps)
    elif path.suffix.lower() in media.PICTURES:
        masks = np.asarray(media.read_picture(path), np.float32).mean(-1)[None] / 255
    else:
        shown = timeline.frames_at(path, fps, count=frames)
        masks = np.stack(
            [_resized(frame.astype(np.float32).mean(-1) / 255, height, width) for frame in shown]
        )
    if len(masks) == 1:
        masks = masks.repeat(frames, axis=0)
    if len(masks) < frames:
        raise UsageError(f"{path} has masks for {len(masks)} frames, the clip has {frames}")
    return np.stack([_resized(mask, height, width) for mask in masks[:frames]])


def _resized(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return a mask [H, W] at another size, each value the mean over its area."""
    if mask.shape == (height, width):
        return mask.astype(np.float32, copy=False)
    values = torch.from_numpy(np.array(mask, np.float32))[None, None]
    return functional.interpolate(values, (height, width), mode="area")[0, 0].numpy()


def _read_array(path: Path, frames: int, fps: float) -> np.ndarray:
    found = arrays.read(path, max_bytes=arrays.MAX_MASK_BYTES)
    values = next((found[name] for name in ("mask", *found) if name in found), None)
    if values is None:
        raise HyError(f"{path} is empty")
    if values.ndim == 2:
        values = values[None]
    if values.ndim != 3 or values.dtype.kind not in "fbui" or 0 in values.shape:
        raise HyError(f"{path} holds {values.dtype} {values.shape}, not masks [F, H, W]")
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
        raise HyError(f"{path} holds values outside of 0 to 1")
    if "fps" in found and len(values) > 1:
        rate = arrays.scalar(found, "fps", path)
        values = values[
            [at for at in (int(frame / fps * rate + 0.25) for frame in range(frames)) if at < len(values)]
        ]
    return values
