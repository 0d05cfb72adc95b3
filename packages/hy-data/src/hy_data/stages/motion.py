"""Motion by optical flow: speed, smoothness, still and slide-show clips, and transitions that are left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from hy_core.data import JSON, ClipRecord, Score, Stage
from hy_core.errors import UsageError
from hy_core.options import option

from hy_data.frames import ClipFrames, FrameStage, View
from hy_data.stages.flow_models import FlowModel, load_raft
from hy_data.transitions import HEIGHT, WIDTH, find_gradual

VIEW = View(256, fps=12, gray=True)
COLOURS = View(256, fps=12)
SIDE = 256
"""Pixels of the longer side of pictures whose flow is estimated."""
_NOISE, _CHANGED = (
    1,
    0.01,
)  # grey levels that don't count, and the share of pixels that may change more in a still pair
_HOLD = 0.5  # seconds of a slide
_JUMP = 12.0  # mean grey levels between two slides
_MOVED = 0.02  # pixels a pair that don't count as motion


class Motion(FrameStage):
    """Estimate the flow of consecutive frames at 12 a second by OpenCV's DIS (fast preset), or by RAFT.

    Speed is in picture diagonals a second. Smoothness is 1 for motion of constant velocity and towards 0 for motion
    that changes as much from pair to pair as it moves. `slideshow` is the share of time in pictures held for half a
    second or more before or after a change to another held picture. `scene_boundary` is the strongest sign of a
    transition inside of the clip: the part of a change that motion doesn't explain, next to what is usual around it (0
    to 1), or 1 for a dissolve. A single frame has no speed, smoothness or `static`.
    """

    name = "motion"
    scores = (
        Score("motion_speed", "mean speed of the picture's points", "high", "diagonals/s"),
        Score("motion_smoothness", "constancy of the motion, 0 to 1", "high"),
        Score("static", "share of the time in which nothing moves", "low"),
        Score("slideshow", "share of the time in held pictures that jump", "low"),
        Score("scene_boundary", "sign of a transition in the clip, 0 to 1", "low"),
    )

    @dataclass(frozen=True)
    class Options(Stage.Options):
        """What is looked at, and by what."""

        backend: Literal["dis", "raft"] = option("dis", help="What estimates the flow.")
        weights: Path | None = option(
            None,
            help="RAFT: an .onnx file, or weights of torchvision's (.safetensors, .pth).",
            metavar="FILE",
        )
        values: Literal["unit", "byte"] = option(
            "unit", help="What an .onnx file takes: -1 to 1 (torchvision), or 0 to 255 (RAFT's repository)."
        )
        pairs: int = option(
            600, help="Pairs of frames that are examined, spread evenly.", minimum=2, maximum=100_000
        )

    options: Options

    def __init__(self, options: Options | None = None, /, **values: object) -> None:
        super().__init__(options, **values)
        if (self.options.backend == "raft") != (self.options.weights is not None):
            raise UsageError(
                f"[stage.motion] backend {self.options.backend} with weights {self.options.weights}",
                "raft needs a file of weights, dis takes none",
            )

    @cached_property
    def _network(self) -> FlowModel | None:
        weights = self.options.weights
        return None if weights is None else load_raft(weights, self.options.values)

    def setup(self) -> None:
        """Load RAFT, if it is the back-end; `MissingError` for a file or package that isn't there."""
        _ = self._network

    def views(self) -> tuple[View, ...]:
        return (VIEW,) if self.options.weights is None else (VIEW, COLOURS)

    def measure(self, record: ClipRecord, frames: ClipFrames) -> tuple[Mapping[str, JSON | np.ndarray], None]:
        images, times = frames[VIEW], frames.times(VIEW)
        if len(images) < 2:
            nothing = dict.fromkeys(("motion_speed", "motion_smoothness", "static"))
            return {**nothing, "slideshow": 0.0, "scene_boundary": 0.0}, None
        scale = min(1.0, SIDE / max(images.shape[1:]))
        size = (max(round(images.shape[2] * scale), 16), max(round(images.shape[1] * scale), 16))
        small = [np.ascontiguousarray(cv2.resize(one, size, interpolation=cv2.INTER_AREA)) for one in images]
        still = is_still(small)
        if self._network is None:
            flows = self._flows(small, still)
        else:
            flows = self._network_flows(self._network, frames[COLOURS], size, still)
        steps = np.maximum(np.diff(times), 1e-3)
        seconds = np.array([steps[pair] for pair in flows])
        lengths = np.array([float(np.hypot(flow[..., 0], flow[..., 1]).mean()) for flow in flows.values()])
        moving = lengths / np.hypot(*size) / seconds if len(lengths) else np.zeros(1)
        total = float(steps.sum()) or 1.0
        return {
            "motion_speed": round(float(moving.mean()), 5),
            "motion_smoothness": round(smoothness(flows), 5),
            "static": round(float(steps[still].sum() / total) if len(still) else 1.0, 5),
            "slideshow": round(slideshow(small, still, times), 5),
            "scene_boundary": round(boundary(small, flows), 5),
        }, None

    def _flows(self, images: list[np.ndarray], still: np.ndarray) -> dict[int, np.ndarray]:
        """Return the flow of pairs of frames, float32 [H, W, 2] in pixels, by the number of the first one."""
        dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        nothing = np.zeros((*images[0].shape, 2), np.float32)
        return {
            pair: nothing if still[pair] else dis.calc(images[pair], images[pair + 1], nothing.copy())
            for pair in self._pairs(len(images) - 1)
        }

    def _network_flows(
        self, network: FlowModel, pictures: np.ndarray, size: tuple[int, int], still: np.ndarray
    ) -> dict[int, np.ndarray]:
        """Return the same of pictures uint8 [T, H, W, 3], in pixels of `size` (width, height)."""
        height, width = pictures.shape[1:3]
        scale = np.asarray([size[0] / width, size[1] / height], np.float32)
        flows = {}
        for pair in self._pairs(len(pictures) - 1):
            if still[pair]:
                flows[pair] = np.zeros((size[1], size[0], 2), np.float32)
            else:
                flow = network.flow(pictures[pair], pictures[pair + 1])
                flows[pair] = cv2.resize(flow, size, interpolation=cv2.INTER_AREA) * scale
        return flows

    def _pairs(self, count: int) -> list[int]:
        """Return the numbers of the pairs that are examined, of `count`."""
        spread = np.linspace(0, count - 1, min(count, self.options.pairs))
        return list(dict.fromkeys(int(one) for one in spread))


def is_still(images: list[np.ndarray]) -> np.ndarray:
    """Return for each pair of consecutive frames uint8 [H, W] whether nothing changes but noise: bool [T - 1]."""
    soft = [cv2.blur(image, (3, 3)) for image in images]
    changed = [np.count_nonzero(cv2.absdiff(a, b) > _NOISE) for a, b in zip(soft, soft[1:], strict=False)]
    return np.array([count <= _CHANGED * soft[0].size for count in changed], bool)


def smoothness(flows: Mapping[int, np.ndarray]) -> float:
    """Return the constancy of flows [H, W, 2] over time, 0 to 1; 1 where nothing moves."""
    coarse = {pair: cv2.resize(flow, (8, 8), interpolation=cv2.INTER_AREA) for pair, flow in flows.items()}
    lengths, changes = [], []
    for pair, flow in coarse.items():
        if pair + 1 in coarse:
            after = coarse[pair + 1]
            lengths.append(float(np.hypot(*np.moveaxis((flow + after) / 2, 2, 0)).mean()))
            changes.append(float(np.hypot(*np.moveaxis(after - flow, 2, 0)).mean()))
    if not lengths or np.mean(lengths) < _MOVED:
        return 1.0
    return float(1 / (1 + np.median(changes) / max(np.median(lengths), _MOVED)))


def slideshow(images: list[np.ndarray], still: np.ndarray, times: np.ndarray) -> float:
    """Return the share of the time in held pictures [H, W] that are next to another, different held picture."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], still.astype(np.int8), [0]])))
    holds = [
        (int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True) if times[b] - times[a] >= _HOLD
    ]
    slides: set[tuple[int, int]] = set()
    for one, other in zip(holds, holds[1:], strict=False):
        if float(cv2.absdiff(images[one[1]], images[other[0]]).mean()) >= _JUMP:
            slides |= {one, other}
    length = float(times[-1] - times[0])
    return sum(float(times[b] - times[a]) for a, b in slides) / length if length > 0 else 0.0


def boundary(images: list[np.ndarray], flows: Mapping[int, np.ndarray]) -> float:
    """Return the strongest sign of a transition within frames [H, W], 0 to 1."""
    tiny = np.stack([cv2.resize(one, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA) for one in images])
    if len(tiny) > 8 and find_gradual(np.repeat(tiny[..., None], 3, 3)):
        return 1.0
    rows, columns = np.mgrid[: images[0].shape[0], : images[0].shape[1]].astype(np.float32)
    left = np.zeros(len(images) - 1)
    for pair, flow in flows.items():
        warped = cv2.remap(
            images[pair + 1],
            columns + flow[..., 0],
            rows + flow[..., 1],
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        left[pair] = float(cv2.absdiff(images[pair], warped).mean())
    contrast = max(float(np.mean([image.std() for image in images[:: max(len(images) // 8, 1)]])), 4.0)
    best = 0.0
    for pair in flows:
        around = [left[near] for near in range(pair - 3, pair + 4) if near != pair and near in flows]
        usual = float(np.median(around)) if around else 0.0
        best = max(best, (left[pair] - 2 * usual) / contrast)
    return float(np.clip(best, 0, 1))
