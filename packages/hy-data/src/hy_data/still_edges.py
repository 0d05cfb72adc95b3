"""Edges that stay in place while the rest of the picture moves: logos and watermarks."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

_EDGE = 4.0  # grey levels per pixel from which on a gradient is an edge
_ALWAYS = 0.1  # quantile over time: an edge may be covered in fewer of the frames
_COHERENT = 0.4  # part of the mean gradient that stays, from which on an edge does
_STATIC = 0.35  # share of all edges that stay, from which on the camera is static
_JOIN = 0.03  # of the height: gaps inside of a logo that are closed
_SMALLEST, _LARGEST = 8e-4, 0.12  # share of the picture that a logo's box has
_LONGEST = 0.85  # of a side, beyond which a still edge is a border and no logo
_NARROWEST = 5  # pixels
_FULL = 0.25  # share of a logo's box that is still edge
_ALL_WAYS = 0.2  # energy of the gradients across their main direction, in that along it
_OWN = 0.5  # share of the edges in a logo's box that stay


@dataclass(frozen=True)
class StillEdges:
    """The share of all edges that stay, and the boxes [N, 4] of logos, in shares of the picture, largest first.

    If most edges stay, the camera is static: then logos can't be told from the scene, and there are no boxes.
    """

    share: float
    boxes: np.ndarray

    @property
    def is_static(self) -> bool:
        """Whether the camera is static, so that pixels alone can't tell a logo."""
        return self.share >= _STATIC


def find_still_edges(frames: np.ndarray) -> StillEdges:
    """Compare the gradients of gray frames, uint8 [T, H, W], over time.

    An edge stays if in nearly all frames the gradient at its place has a large part along the median gradient. A logo
    that lets the scene shine through keeps its edges too, while its pixels vary.
    """
    height, width = frames.shape[1:]
    smooth = [cv2.GaussianBlur(frame, (3, 3), 0).astype(np.float32) for frame in frames]
    across = np.stack([cv2.Sobel(one, cv2.CV_32F, 1, 0, scale=1 / 8) for one in smooth])
    down = np.stack([cv2.Sobel(one, cv2.CV_32F, 0, 1, scale=1 / 8) for one in smooth])
    length = np.hypot(across, down).mean(0)
    way = np.median(across, 0), np.median(down, 0)
    along = (across * way[0] + down * way[1]) / np.maximum(np.hypot(*way), 1e-3)
    still = np.quantile(along, _ALWAYS, axis=0)
    stays = (still >= _EDGE) & (still >= _COHERENT * length)
    edges = length >= _EDGE
    share = float((stays & edges).sum() / max(1, edges.sum()))
    if share >= _STATIC:
        return StillEdges(share, np.zeros((0, 4)))
    gap = max(2, round(_JOIN * height))
    joined = cv2.morphologyEx(
        stays.astype(np.uint8),
        cv2.MORPH_CLOSE,
        cv2.getStructuringElement(cv2.MORPH_RECT, (2 * gap + 1, gap + 1)),
    )
    _, _, stats, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    boxes = []
    for left, top, wide, high, _ in stats[1:]:
        part = np.s_[top : top + high, left : left + wide]
        if (
            _SMALLEST <= wide * high / (width * height) <= _LARGEST
            and wide <= _LONGEST * width
            and high <= _LONGEST * height
            and min(wide, high) >= _NARROWEST
            and stays[part].mean() >= _FULL
            and (stays & edges)[part].sum() >= _OWN * edges[part].sum()
            and _spread(way[0][part][stays[part]], way[1][part][stays[part]]) >= _ALL_WAYS
        ):
            boxes.append([left / width, top / height, (left + wide) / width, (top + high) / height])
    boxes.sort(key=lambda box: -(box[2] - box[0]) * (box[3] - box[1]))
    return StillEdges(share, np.asarray(boxes, np.float64).reshape(-1, 4))


def _spread(across: np.ndarray, down: np.ndarray) -> float:
    """How evenly gradients point all ways, 0..1: 0 for a straight line, which a camera may follow."""
    if not len(across):
        return 0.0
    least, most = np.linalg.eigvalsh(
        np.array([[across @ across, across @ down], [across @ down, down @ down]])
    )
    return float(least / most) if most > 0 else 0.0
