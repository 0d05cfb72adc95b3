"""Quality in two views by DOVER (arXiv 2211.04894), from a given ONNX file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from hy_core.data import JSON, ClipRecord, Resources, Score, Stage
from hy_core.errors import HyError, MissingError, UsageError
from hy_core.media import timeline
from hy_core.options import option

from hy_data import onnx_models
from hy_data.onnx_models import open_session
from hy_data.stills import is_still, read_still

LENGTH = 32
"""Frames of a clip in both views."""

_INTERVAL, _CLIPS = 2, 3  # of the technical view: frames between its frames, and clips
_GRID, _PATCH = 7, 32  # fragments a side, and pixels a side of one
_SIDE = _GRID * _PATCH
_MEAN = np.array([123.675, 116.28, 103.53], np.float32)
_STD = np.array([58.395, 57.12, 57.375], np.float32)


class Dover(Stage):
    """Rate aesthetics from frames as a whole, and technical quality from fragments at full resolution.

    The ONNX file has two inputs, the aesthetic view [1, 3, 32, 224, 224] and the technical view [3, 3, 32, 224, 224],
    and two outputs, the scores of these views in the same order, of which means are taken: what the export script of
    DOVER's repository makes, with 3 clips. Finds `dover_aesthetic`, `dover_technical`, and `dover`, both fused, in
    0..1. DOVER's own weights are for non-commercial use only.
    """

    name = "dover"
    scores = (
        Score("dover", "quality by DOVER, both views fused", "high"),
        Score("dover_aesthetic", "aesthetic quality by DOVER", "high"),
        Score("dover_technical", "technical quality by DOVER", "high"),
    )
    resources = Resources(cpus=1, memory=3 << 30)

    @dataclass(frozen=True)
    class Options(Stage.Options):
        """The network."""

        weights: Path = option(help="ONNX file of DOVER.", metavar="FILE")

    @cached_property
    def _session(self) -> Any:
        try:
            session = open_session(self.options.weights, inputs=2)
        except MissingError as error:
            raise MissingError(f"dover: {error.message}", error.hint) from None
        if len(session.get_outputs()) != 2:
            raise UsageError(
                f"{self.options.weights} has {len(session.get_outputs())} outputs", "DOVER has 2"
            )
        return session

    def setup(self) -> None:
        """Load the network; `MissingError` without the file or ONNX Runtime, `UsageError` for another kind of file."""
        _ = self._session

    def found(self, record: ClipRecord) -> tuple[Mapping[str, JSON | np.ndarray], None]:
        start, stop = record.span or (0.0, None)
        if is_still(record.file):
            stop, count = 1.0, 1
        else:
            extent = timeline.measure(record.file)
            stop = extent.duration if stop is None else stop
            count = max(1, round((stop - start) * extent.fps))
        aesthetic, technical = aesthetic_frames(count), technical_frames(count)
        views = sampled(record, (start, stop), aesthetic, technical)
        outputs = onnx_models.run(self._session, *views)
        first, second = (float(np.mean(one)) for one in outputs)
        return {
            "dover_aesthetic": round(first, 5),
            "dover_technical": round(second, 5),
            "dover": round(fused(first, second), 5),
        }, None


def aesthetic_frames(count: int) -> np.ndarray:
    """Return the numbers [32] of the frames of the aesthetic view, evenly spread over `count` frames."""
    starts = count // LENGTH * np.arange(LENGTH)
    numbers: np.ndarray = (starts + max(0, (count // LENGTH - 1) // 2)) % count
    return numbers


def technical_frames(count: int) -> np.ndarray:
    """Return the numbers [96] of the frames of the technical view: three clips of 32, every second frame.

    Clips are centred in thirds of the video, where DOVER draws their places; a short video is repeated.
    """
    third = count // _CLIPS
    slack = max(0, third - LENGTH * _INTERVAL) // 2
    starts = third * np.arange(_CLIPS) + slack
    numbers: np.ndarray = (starts[:, None] + _INTERVAL * np.arange(LENGTH)).ravel() % count
    return numbers


def fragments(frame: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Return a picture of 224x224 of patches of a frame [H, W, 3]; `corners` [7, 7, 2] are their tops and lefts."""
    rows = [
        np.concatenate([frame[top : top + _PATCH, left : left + _PATCH] for top, left in row], axis=1)
        for row in corners
    ]
    return np.concatenate(rows)


def fragment_corners(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Return tops and lefts [7, 7, 2] of patches, one at a random place in each cell of a grid of 7x7."""
    corners = np.zeros((_GRID, _GRID, 2), int)
    for axis, side in enumerate((height, width)):
        cell = side // _GRID
        starts = np.minimum(cell * np.arange(_GRID), side - _PATCH)
        starts = starts[:, None] if axis == 0 else starts[None]
        corners[..., axis] = starts + (
            rng.integers(cell - _PATCH, size=(_GRID, _GRID)) if cell > _PATCH else 0
        )
    return corners


def fused(aesthetic: float, technical: float) -> float:
    """Return DOVER's overall score in 0..1: both scores normalised, weighted, through a sigmoid (its repository)."""
    value = 0.6104 * (technical - 0.1107) / 0.07355 + 0.3896 * (aesthetic + 0.08285) / 0.03774
    return float(1 / (1 + np.exp(-np.clip(value, -500, 500))))


def sampled(
    record: ClipRecord, span: tuple[float, float], aesthetic: np.ndarray, technical: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Decode a span once and return both views, float32 [1, 3, 32, 224, 224] and [3, 3, 32, 224, 224], normalised."""
    rng = np.random.default_rng(0)  # the same clip always gives the same score
    whole, pieces = (
        np.zeros((LENGTH, _SIDE, _SIDE, 3), np.uint8),
        np.zeros((len(technical), _SIDE, _SIDE, 3), np.uint8),
    )
    corners: list[np.ndarray] = []
    frames = _frames(record, span)
    frame = None
    for number, (_, frame) in enumerate(_held(frames, int(max(aesthetic.max(), technical.max())) + 1)):
        for place in np.nonzero(aesthetic == number)[0]:
            whole[place] = cv2.resize(frame, (_SIDE, _SIDE), interpolation=cv2.INTER_LINEAR)
        places = np.nonzero(technical == number)[0]
        if len(places):
            large = _at_least(frame)
            height, width = large.shape[:2]
            corners = corners or [fragment_corners(height, width, rng) for _ in range(_CLIPS)]
            for place in places:
                pieces[place] = fragments(large, corners[place // LENGTH])
    if frame is None:
        raise HyError(f"{record.path} has no frames from {span[0]:g} to {span[1]:g} s")
    return _normal(whole, 1), _normal(pieces, _CLIPS)


def _frames(record: ClipRecord, span: tuple[float, float]) -> Iterator[tuple[float, np.ndarray]]:
    if not is_still(record.file):
        yield from timeline.frames(record.file, span, crop=record.crop)
        return
    left, top, right, bottom = record.crop or (0, 0, None, None)
    yield 0.0, read_still(record.file).to_array()[top:bottom, left:right]


def _held(frames: Iterator[tuple[float, np.ndarray]], count: int) -> Iterator[tuple[float, np.ndarray]]:
    """The first `count` frames; if there are fewer, the last is repeated."""
    last, given = None, 0
    for last in frames:
        yield last
        given += 1
        if given == count:
            return
    while last is not None and given < count:
        yield last
        given += 1


def _at_least(frame: np.ndarray) -> np.ndarray:
    """A frame that is at least 224 pixels a side, enlarged if need be."""
    scale = _SIDE / min(frame.shape[:2])
    if scale <= 1:
        return frame
    size = (max(_SIDE, round(frame.shape[1] * scale)), max(_SIDE, round(frame.shape[0] * scale)))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR))


def _normal(frames: np.ndarray, clips: int) -> np.ndarray:
    values = (frames.astype(np.float32) - _MEAN) / _STD
    return np.ascontiguousarray(values.reshape(clips, -1, *frames.shape[1:]).transpose(0, 4, 1, 2, 3))
