"""Labelled clips of synthetic camera moves over photographs."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
import cv2
import numpy as np

from hy_data.camera.classes import CLASSES
from hy_data.camera.moves import NORMAL, SLOW, camera_path
from hy_data.camera.photographs import Photograph
from hy_data.camera.scenes import photo_scene, render, room_scene

SIZES = ((144, 256), (144, 256), (144, 256), (166, 222), (192, 192), (256, 144), (126, 294))
"""Heights and widths that are drawn from: most are 16:9."""


@dataclass(frozen=True)
class Settings:
    """What clips are made: shares of all.

    `slow`: moves of 8 to 30 pixels, of a picture 256 wide; `compressed`: through H.264 at a CRF of `crf`; `rooms`:
    rooms with boxes; `flat`: of the others, a photograph alone without cut-outs before it.
    """

    slow: float = 0.0
    compressed: float = 0.0
    crf: tuple[int, ...] = (30, 33)
    rooms: float = 0.25
    flat: float = 0.3


@dataclass(frozen=True)
class LabelledClip:
    """Pictures uint8 [T, H, W] (luma) with their class, and the kind of scene: flat, depth or room."""

    frames: np.ndarray
    label: str
    scene: str


def clips(
    photographs: Sequence[Photograph], count: int, seed: int, settings: Settings | None = None
) -> Iterator[LabelledClip]:
    """Yield `count` clips, the classes in turn; the clip of a number is the same for every count."""
    settings = settings or Settings()
    for number in range(count):
        yield make_clip(photographs, CLASSES[number % len(CLASSES)], (seed, number), settings)


def make_clip(
    photographs: Sequence[Photograph], label: str, seed: tuple[int, int], settings: Settings
) -> LabelledClip:
    """Make one clip of a class."""
    rng = np.random.default_rng(seed)
    images = [photographs[index].image for index in rng.permutation(len(photographs))[:4]]
    size = SIZES[rng.integers(len(SIZES))]
    flat = bool(rng.random() < settings.flat)
    if rng.random() < settings.rooms:
        scene, kind = room_scene(images, rng), "room"
    else:
        scene, kind = photo_scene(images, rng, flat=flat, size=size), "flat" if flat else "depth"
    path = camera_path(
        label,
        int(rng.choice([9, 17, 25])),
        rng,
        speed=SLOW if rng.random() < settings.slow else NORMAL,
        depth=scene.depth,
        pivot=scene.pivot,
    )
    frames = _sensor(render(scene, path, size), rng)
    if rng.random() < settings.compressed:
        frames = compressed(frames, int(rng.choice(settings.crf)))
    return LabelledClip(frames, label, kind)


def compressed(frames: np.ndarray, crf: int) -> np.ndarray:
    """Return the pictures after H.264 (x264) at a constant rate factor: uint8 [T, H, W], even sides."""
    file = io.BytesIO()
    height, width = frames.shape[1:]
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream(
            "libx264", Fraction(24), {"crf": str(crf), "preset": "fast", "threads": "1"}
        )
        stream.width, stream.height, stream.pix_fmt = width, height, "gray"
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="gray")))
        container.mux(stream.encode())
    file.seek(0)
    with av.open(file, "r") as source:
        pictures = [frame.to_ndarray(format="gray") for frame in source.decode(video=0)]
    return np.ascontiguousarray(np.stack(pictures))


def _sensor(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add what a camera does: softness, changes of exposure, noise."""
    softness = rng.choice([0.0, 0.0, 0.6, 1.0])
    exposure = 1 + rng.choice([0.0, 0.0, 0.05]) * np.sin(np.linspace(0, rng.uniform(1, 6), len(frames)))
    noise = np.float32(rng.choice([0.0, 1.5, 4.0]))
    pictures = np.empty_like(frames)
    size = frames[0].size
    grain = noise * rng.standard_normal(2 * size, np.float32) if noise else np.zeros(2 * size, np.float32)
    for index, (frame, start) in enumerate(zip(frames, rng.integers(size, size=len(frames)), strict=True)):
        picture = cv2.GaussianBlur(frame, (0, 0), softness) if softness else frame
        shown = picture * np.float32(exposure[index]) + grain[start : start + size].reshape(frame.shape)
        pictures[index] = np.clip(shown, 0, 255)
    return pictures
