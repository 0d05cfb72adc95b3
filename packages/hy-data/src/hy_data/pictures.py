"""Measures of single pictures that need no weights: sharpness, PIQE, exposure, colours, composition."""

from __future__ import annotations

import cv2
import numpy as np

_BLOCK, _SEGMENT = 16, 6  # pixels: PIQE's blocks and the segments of their edges
_ACTIVE, _FLAT = 0.1, 0.1  # PIQE: variance of an active block, deviation of a distorted segment
_DARK, _BRIGHT = 8, 247  # grey levels below and above which nothing is drawn
_MIDDLE, _THIRDS = (0.5, 0.5), (1 / 3, 2 / 3)


def sharpness(gray: np.ndarray) -> float:
    """Return the variance of the Laplacian of a picture uint8 [H, W]; it depends on the height, and noise raises it."""
    return float(cv2.Laplacian(gray, cv2.CV_32F).var())


def piqe(gray: np.ndarray) -> float:
    """Return the Perception-based Image Quality Evaluator of a picture uint8 [H, W]: 0 (good) to 100 (bad).

    Venkatanath et al., "Blind image quality evaluation using perception based features", NCC 2015. Blocks of 16x16
    normalised pixels that are active (variance over 0.1) count: as distorted where a segment of 6 pixels on an edge is
    flat (deviation under 0.1), weighed by 1 - variance, and as noisy where the deviation exceeds twice the difference
    between the block's middle columns and the others, weighed by the variance. Pictures under 16 pixels give 0.
    """
    rows, columns = gray.shape[0] // _BLOCK, gray.shape[1] // _BLOCK
    if not rows or not columns:
        return 0.0
    image = gray[: rows * _BLOCK, : columns * _BLOCK].astype(np.float32)
    mean = cv2.GaussianBlur(image, (7, 7), 7 / 6, borderType=cv2.BORDER_REPLICATE)
    square = cv2.GaussianBlur(image * image, (7, 7), 7 / 6, borderType=cv2.BORDER_REPLICATE)
    normal = (image - mean) / (np.sqrt(np.abs(square - mean * mean)) + 1)
    blocks = normal.reshape(rows, _BLOCK, columns, _BLOCK).swapaxes(1, 2).reshape(-1, _BLOCK, _BLOCK)
    variance = blocks.var((1, 2), ddof=1)
    active = variance > _ACTIVE
    blocks, variance = blocks[active], variance[active]
    if not len(blocks):
        return 100.0
    edges = np.stack([blocks[:, 0], blocks[:, -1], blocks[:, :, 0], blocks[:, :, -1]], 1)
    segments = np.lib.stride_tricks.sliding_window_view(edges, _SEGMENT, axis=2)
    distorted = (segments.std(-1, ddof=1) < _FLAT).any((1, 2))
    half = _BLOCK // 2
    middle = blocks[:, :, half - 1 : half + 1].std((1, 2), ddof=1)
    others = np.delete(blocks, (half - 1, half), axis=2).std((1, 2), ddof=1)
    deviation = np.sqrt(variance)
    ratio = middle / np.maximum(others, 1e-6)
    unlike = np.abs(deviation - ratio) / np.maximum(np.maximum(deviation, ratio), 1e-6)
    noisy = deviation > 2 * unlike
    amount = np.where(distorted, 1 - variance, 0) + np.where(noisy, variance, 0)
    return float(100 * (amount.sum() + 1) / (1 + len(blocks)))


def exposure(gray: np.ndarray) -> tuple[float, float, float]:
    """Return the mean of a picture uint8 [H, W] (0 to 1) and the shares of its pixels that are black and white."""
    return float(gray.mean() / 255), float((gray <= _DARK).mean()), float((gray >= _BRIGHT).mean())


def colourfulness(image: np.ndarray) -> float:
    """Return the colourfulness of a picture uint8 [H, W, 3]: 0 grey, 30 to 60 usual, over 80 gaudy.

    Hasler and Süsstrunk, "Measuring colourfulness in natural images", 2003: M = sigma + 0.3 mu of R-G, (R+G)/2-B.
    """
    red, green, blue = (image[..., channel].astype(np.float32) for channel in range(3))
    first, second = red - green, (red + green) / 2 - blue
    spread = np.hypot(first.std(), second.std())
    return float(spread + 0.3 * np.hypot(first.mean(), second.mean()))


def composition(gray: np.ndarray) -> float:
    """Return how near the salient part of a picture uint8 [H, W] is to its middle or a crossing of thirds: 0 to 1.

    Saliency is the spectral residual (Hou and Zhang, 2007) of 64x64 pixels.
    """
    small = cv2.resize(gray, (64, 64), interpolation=cv2.INTER_AREA).astype(np.float32)
    spectrum = np.fft.fft2(small)
    log = np.log(np.abs(spectrum) + 1e-6).astype(np.float32)
    residual = log - cv2.blur(log, (3, 3))
    salient = np.abs(np.fft.ifft2(np.exp(residual + 1j * np.angle(spectrum)))) ** 2
    salient = cv2.GaussianBlur(salient.astype(np.float32), (0, 0), 3)
    salient = np.maximum(salient - np.percentile(salient, 80), 0)
    if salient.sum() < 1e-9:
        return 0.0
    weights, grid = salient / salient.sum(), (np.arange(64) + 0.5) / 64
    y, x = float(weights.sum(1) @ grid), float(weights.sum(0) @ grid)
    points = [_MIDDLE, *((a, b) for a in _THIRDS for b in _THIRDS)]
    return float(np.exp(-((min(np.hypot(y - a, x - b) for a, b in points) / 0.12) ** 2)))
