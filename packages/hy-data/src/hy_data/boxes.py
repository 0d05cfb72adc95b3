"""Boxes in pictures: how much they cover, which of them are the same, and what is left beside them.

Boxes are float [N, 4]: left, top, right, bottom, in pixels or in shares of the picture.
"""

from __future__ import annotations

import cv2
import numpy as np

Box = tuple[int, int, int, int]


def overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the intersection over union of each box of [N, 4] with each of [M, 4], as [N, M]."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    both = np.prod(np.clip(high - low, 0, None), axis=2)
    total = areas(first)[:, None] + areas(second)[None] - both
    shares: np.ndarray = both / np.maximum(total, 1e-9)
    return shares


def areas(boxes: np.ndarray) -> np.ndarray:
    """Return the areas [N] of boxes [N, 4]."""
    found: np.ndarray = np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None), axis=1)
    return found


def strongest(
    boxes: np.ndarray, scores: np.ndarray, most: float, classes: np.ndarray | None = None
) -> np.ndarray:
    """Return the indices of boxes that remain after non-maximum suppression, best first.

    A box goes if it overlaps a better one of its class (`classes` [N], None for one class) by more than `most`.
    """
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    same = np.ones((len(boxes), len(boxes)), bool) if classes is None else classes[:, None] == classes[None]
    clash = (overlaps(boxes, boxes) > most) & same
    gone = np.zeros(len(boxes), bool)
    for index in order:
        if not gone[index]:
            kept.append(int(index))
            gone |= clash[index]
    return np.asarray(kept, np.int64)


def boxes_of(corners: np.ndarray) -> np.ndarray:
    """Return the upright boxes [N, 4] around polygons [N, K, 2]."""
    return np.concatenate([corners.min(1), corners.max(1)], axis=1)


def filled(corners: np.ndarray, size: tuple[int, int]) -> float:
    """Return the share of a picture of (height, width) that polygons [N, K, 2] in pixels cover together, 0..1."""
    mask = np.zeros(size, np.uint8)
    for polygon in corners:  # one by one: filled together, an overlap of two would count as outside
        cv2.fillPoly(mask, [np.round(polygon).astype(np.int32)], 1)
    return float(mask.mean())


def largest_free(boxes: np.ndarray, size: tuple[int, int]) -> Box:
    """Return the largest rectangle of a picture of (height, width) that touches none of the boxes [N, 4] in pixels.

    All zeros if there is none.
    """
    height, width = size
    low = np.clip(np.floor(boxes[:, :2]), 0, [width, height]).astype(int)
    high = np.clip(np.ceil(boxes[:, 2:]), 0, [width, height]).astype(int)
    best, rectangle = 0, (0, 0, 0, 0)
    for top in sorted({0, *high[:, 1]}):
        for bottom in sorted({height, *low[:, 1]}, reverse=True):
            if (bottom - top) * width <= best:
                break
            between = (low[:, 1] < bottom) & (high[:, 1] > top)
            left = 0
            for start, stop in [*sorted(zip(low[between, 0], high[between, 0], strict=True)), (width, width)]:
                if (start - left) * (bottom - top) > best:
                    best, rectangle = (start - left) * (bottom - top), (left, top, start, bottom)
                left = max(left, stop)
    left, top, right, bottom = rectangle
    return int(left), int(top), int(right), int(bottom)
