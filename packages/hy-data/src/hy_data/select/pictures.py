"""Pictures of a clip for comparing clips: still ones, without black bars, and their appearance as a vector."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np

_DARK = 30
"""Luma below which a pixel may belong to a black bar: compression makes bars grey."""
_MOST_BAR = 0.4  # of a side; more than that is a dark scene

HUES, SATURATIONS, VALUES = 16, 3, 4
CELLS, DIRECTIONS = 6, 8
VECTOR_LENGTH = HUES * SATURATIONS + VALUES + 63 + CELLS * CELLS * DIRECTIONS


def content_box(luma: np.ndarray) -> tuple[int, int, int, int]:
    """Return (top, left, bottom, right) of the picture inside of black bars, of luma uint8 [T, H, W].

    A line belongs to a bar if 95 % of its pixels are dark in every frame.
    """
    edges = []
    for axis in (2, 1):
        dark = np.percentile(luma, 95, axis=axis).max(0) < _DARK
        size = len(dark)
        bright = np.flatnonzero(~dark)
        first, last = (int(bright[0]), int(bright[-1]) + 1) if len(bright) else (0, size)
        if first > size * _MOST_BAR or size - last > size * _MOST_BAR:
            first, last = 0, size
        edges.append((first, last))
    (top, bottom), (left, right) = edges
    return top, left, bottom, right


def stillest(luma: np.ndarray, parts: int) -> np.ndarray:
    """Return the index of the frame with the least motion in each of `parts` parts of frames, uint8 [T, H, W]."""
    small = np.stack([cv2.resize(one, (48, 27), interpolation=cv2.INTER_AREA) for one in luma]).astype(
        np.float32
    )
    step = np.abs(np.diff(small, axis=0)).mean((1, 2)) if len(small) > 1 else np.zeros(0, np.float32)
    # A frame moves as much as to both of its neighbours; the first and the last have one.
    motion = (
        (np.concatenate([step[:1], step]) + np.concatenate([step, step[-1:]])) if len(step) else np.zeros(1)
    )
    ends = np.linspace(0, len(luma), min(parts, len(luma)) + 1).round().astype(int)
    return np.array([first + int(motion[first:last].argmin()) for first, last in pairwise(ends)])


def shrunk(luma: np.ndarray, height: int) -> np.ndarray:
    """Return uint8 [T, H, W] at most so high."""
    if luma.shape[1] <= height:
        return luma
    width = max(2, round(luma.shape[2] * height / luma.shape[1]))
    return np.stack([cv2.resize(one, (width, height), interpolation=cv2.INTER_AREA) for one in luma])


def to_luma(frames: np.ndarray) -> np.ndarray:
    """Return uint8 [T, H, W] of uint8 [T, H, W, 3]."""
    return np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames])


def appearance(frames: np.ndarray) -> np.ndarray:
    """Return the mean appearance of frames, uint8 [T, H, W, 3], as a unit vector, float32 [VECTOR_LENGTH].

    Colour: a histogram of hue and saturation and one of value. Arrangement: the lowest 8x8 frequencies of the luma, and
    edge directions in 6x6 cells, each weighted by its edges. Mirrored frames have the same vector: of frequencies that
    are odd in x the size is taken, of cells and directions the sum and the size of the difference.
    """
    top, left, bottom, right = content_box(to_luma(frames))
    parts = [_frame(frame[top:bottom, left:right]) for frame in frames]
    vector = np.mean(parts, axis=0)
    return (vector / max(float(np.linalg.norm(vector)), 1e-6)).astype(np.float32)


def _frame(frame: np.ndarray) -> np.ndarray:
    small = cv2.resize(frame, (96, 96), interpolation=cv2.INTER_AREA)
    luma = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    parts = ((0.5, _colours(small)), (0.7, _frequencies(luma)), (1.0, _edges(luma)))
    return np.concatenate([weight * _unit(part) for weight, part in parts])


def _colours(small: np.ndarray) -> np.ndarray:
    hsv = cv2.cvtColor(small, cv2.COLOR_RGB2HSV)
    tone = cv2.calcHist(
        [hsv], [0, 1], (hsv[..., 2] > 40).astype(np.uint8), [HUES, SATURATIONS], [0, 180, 0, 256]
    )
    value = cv2.calcHist([hsv], [2], None, [VALUES], [0, 256])
    return np.concatenate([np.sqrt(tone.ravel()), 0.5 * np.sqrt(value.ravel())])


def _frequencies(luma: np.ndarray) -> np.ndarray:
    small = cv2.resize(luma, (32, 32), interpolation=cv2.INTER_AREA)
    low = cv2.dct(small)[:8, :8].copy()
    low[:, 1::2] = np.abs(low[:, 1::2])
    # Single strong frequencies (a horizon) would hide the rest.
    low = np.sign(low) * np.sqrt(np.abs(low))
    return low.ravel()[1:]


def _edges(luma: np.ndarray) -> np.ndarray:
    luma = cv2.GaussianBlur(luma, (0, 0), 1.5)
    across, down = cv2.Sobel(luma, cv2.CV_32F, 1, 0), cv2.Sobel(luma, cv2.CV_32F, 0, 1)
    size, angle = cv2.cartToPolar(across, down)
    place = angle * (DIRECTIONS / (2 * np.pi))
    low = np.floor(place).astype(int)
    part = place - low
    side = luma.shape[0] // CELLS
    cells = np.zeros((CELLS, CELLS, DIRECTIONS), np.float32)
    for direction, weight in ((low % DIRECTIONS, (1 - part) * size), ((low + 1) % DIRECTIONS, part * size)):
        for index in range(DIRECTIONS):
            chosen = np.where(direction == index, weight, 0)
            cells[..., index] += chosen.reshape(CELLS, side, CELLS, side).sum((1, 3))
    cells = np.sqrt(cells)
    # Direction d at x is direction (half a turn - d) at the other side of the mirrored picture.
    turned = (DIRECTIONS // 2 - np.arange(DIRECTIONS)) % DIRECTIONS
    mirrored = cells[:, ::-1][..., turned]
    half = CELLS // 2
    both, apart = (cells + mirrored)[:, :half], np.abs(cells - mirrored)[:, :half]
    return np.concatenate([both.ravel(), apart.ravel()])


def _unit(part: np.ndarray) -> np.ndarray:
    return part.astype(np.float32) / max(float(np.linalg.norm(part)), 1e-6)
