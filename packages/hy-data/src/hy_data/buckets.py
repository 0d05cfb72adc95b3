"""Buckets: the shapes in which clips are trained on, by duration and aspect ratio, and which clip goes to which.

A clip goes to the longest bucket duration that it fills, and there to the aspect ratio nearest to its own. Clips that
fit none are counted by their reason, never left out silently.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from hy_core.data import ClipShape
from hy_core.errors import UsageError

ASPECTS = (9 / 21, 9 / 16, 2 / 3, 3 / 4, 1.0, 4 / 3, 3 / 2, 16 / 9, 21 / 9)
"""Aspect ratios, width by height."""


@dataclass(frozen=True)
class Assignment:
    """`bucket` int32 [N]: the bucket of each clip, -1 for none; `reasons`: how many fit none, by reason."""

    buckets: tuple[ClipShape, ...]
    bucket: np.ndarray
    reasons: Mapping[str, int]

    def counts(self) -> tuple[int, ...]:
        """The number of clips of each bucket."""
        kept = self.bucket[self.bucket >= 0]
        return tuple(np.bincount(kept, minlength=len(self.buckets)).tolist())


def make_buckets(
    frames: Sequence[int],
    area: int,
    aspects: Sequence[float] = ASPECTS,
    multiple: int = 16,
) -> tuple[ClipShape, ...]:
    """Return buckets of each number of frames and aspect ratio, with about `area` pixels a frame.

    Sides are multiples of `multiple`; equal shapes come once. `UsageError` for nothing to make buckets of.
    """
    if not frames or not aspects or min(frames) < 1 or min(aspects) <= 0 or area < multiple**2:
        raise UsageError(
            f"no buckets can be made of {list(frames)} frames, {area} pixels, aspects {list(aspects)}"
        )
    shapes: dict[ClipShape, None] = {}
    for count in sorted(set(frames)):
        for aspect in sorted(aspects):
            height = max(1, round((area / aspect) ** 0.5 / multiple)) * multiple
            width = max(1, round((area * aspect) ** 0.5 / multiple)) * multiple
            shapes[ClipShape(count, height, width)] = None
    return tuple(shapes)


def assign(
    buckets: Sequence[ClipShape],
    frames: np.ndarray,
    heights: np.ndarray,
    widths: np.ndarray,
    enlarge: float = 1.0,
    stretch: float = 1.5,
) -> Assignment:
    """Assign clips, whose frames (at the rate of training), heights and widths are int [N], to buckets.

    A side may be enlarged by at most the factor `enlarge`, and `stretch` is the largest ratio between a clip's aspect
    and its bucket's: what is over is cropped. Pictures, clips of one frame, only go to buckets of one frame.
    """
    frames, heights, widths = (np.asarray(one, np.int64) for one in (frames, heights, widths))
    found = np.full(len(frames), -1, np.int32)
    reasons: dict[str, int] = {}
    lengths = np.array(sorted({shape.frames for shape in buckets}))
    place = np.searchsorted(lengths, frames, side="right") - 1
    sound = (frames > 0) & (heights > 0) & (widths > 0)
    _count(reasons, "no pictures", ~sound)
    _count(reasons, f"fewer than {lengths[0]} frames", sound & (place < 0))
    if lengths[0] > 1:
        _count(reasons, "a picture, and no bucket has one frame", sound & (place >= 0) & (frames == 1))
    aspect = np.log(np.maximum(widths, 1) / np.maximum(heights, 1))
    for index, length in enumerate(lengths):
        rows = np.flatnonzero(sound & (place == index) & ((frames > 1) | (length == 1)))
        numbers = [number for number, shape in enumerate(buckets) if shape.frames == length]
        ratios = np.log([buckets[number].width / buckets[number].height for number in numbers])
        off = np.abs(aspect[rows, None] - ratios)
        best = off.argmin(1)
        chosen = np.array(numbers, np.int32)[best]
        is_near = off[np.arange(len(rows)), best] <= np.log(stretch) + 1e-9
        tall = np.array([shape.height for shape in buckets])[chosen]
        wide = np.array([shape.width for shape in buckets])[chosen]
        scale = np.maximum(
            tall / heights[rows], wide / widths[rows]
        )  # the bucket is covered, the rest cropped
        is_large = scale <= enlarge + 1e-9
        _count(reasons, f"an aspect ratio over {stretch:g} times off every bucket", ~is_near)
        _count(reasons, "a picture smaller than its bucket", is_near & ~is_large)
        found[rows[is_near & is_large]] = chosen[is_near & is_large]
    return Assignment(tuple(buckets), found, reasons)


def tokens(shape: ClipShape, time: int = 4, space: int = 8, patch: int = 2) -> int:
    """Return the tokens of a clip in the DiT: latent frames by patches of `patch` x `patch` latents."""
    frames = (shape.frames - 1) // time + 1
    return frames * max(1, shape.height // (space * patch)) * max(1, shape.width // (space * patch))


def _count(reasons: dict[str, int], reason: str, rows: np.ndarray) -> None:
    if count := int(rows.sum()):
        reasons[reason] = reasons.get(reason, 0) + count
