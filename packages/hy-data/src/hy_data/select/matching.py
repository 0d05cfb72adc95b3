"""Whether two clips show the same frames: local features, an affine map between the pictures, and what agrees under it.

The method: SIFT with the ratio test (Lowe 2004), the map by RANSAC, then the second picture is warped onto the first
and the share of the frame that agrees is measured. Inliers alone would merge other people before the same wall.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from hy_data.select.pictures import content_box
from hy_data.select.signature import Signature

VERSION = 1
"""Part of the name of stored matches; raised when the same signatures match differently."""
FEATURES = 400
_RATIO = 0.8
_LEAST_MATCHES = 6
_TINY = 24
_LEAST_HEIGHT = 160
_COMPARE_HEIGHT = 72
_WINDOW = 9
_PAIRS = 3


@dataclass(frozen=True)
class Match:
    """How well two clips match. `inliers`: local features that one affine map explains. `agreement`: the share of the
    common picture that agrees, 0 to 1. `overlap`: the common picture as a share of the smaller one. `mirrored`:
    whether one is the mirror image of the other."""

    inliers: int = 0
    agreement: float = 0.0
    overlap: float = 0.0
    mirrored: bool = False


class Frames:
    """The pictures of a signature with their features, which are computed when they are needed."""

    def __init__(self, signature: Signature) -> None:
        top, left, bottom, right = content_box(np.stack(signature.pictures))
        self.pictures = [_enlarged(picture[top:bottom, left:right]) for picture in signature.pictures]
        self.times = signature.times
        self._features: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    @cached_property
    def tiny(self) -> np.ndarray:
        """Pictures of 24x24 with mean 0 and length 1, float32 [T, 24, 24]."""
        small = np.stack([
            cv2.GaussianBlur(cv2.resize(one, (_TINY, _TINY), interpolation=cv2.INTER_AREA).astype(np.float32), (0, 0), 1)
            for one in self.pictures
        ])
        small -= small.mean((1, 2), keepdims=True)
        return small / np.maximum(np.linalg.norm(small, axis=(1, 2), keepdims=True), 1e-6)

    def features(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return places [N, 2] in pixels (x, y) and root SIFT descriptors, float32 [N, 128], of a picture."""
        if index not in self._features:
            points, found = _sift().detectAndCompute(self.pictures[index], None)
            places = np.float32([point.pt for point in points]).reshape(-1, 2)
            descriptors = np.zeros((0, 128), np.float32) if found is None else found
            total = np.maximum(descriptors.sum(1, keepdims=True), 1e-6)
            self._features[index] = places, np.sqrt(descriptors / total)
        return self._features[index]


def _enlarged(picture: np.ndarray) -> np.ndarray:
    """A picture of at least `_LEAST_HEIGHT`: SIFT finds few points in smaller ones."""
    scale = _LEAST_HEIGHT / picture.shape[0]
    if scale <= 1:
        return picture
    return cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)


def match(first: Frames, second: Frames) -> Match:
    """Return the best match of any frames of two clips, also if one is mirrored."""
    best = Match()
    for mirrored, i, j in _likely_pairs(first, second):
        found = _match_pictures(first, i, second, j, mirrored)
        if (found.agreement * found.overlap, found.inliers) > (best.agreement * best.overlap, best.inliers):
            best = found
    return best


def _likely_pairs(first: Frames, second: Frames) -> list[tuple[bool, int, int]]:
    """The pairs of frames that look most alike, some of them mirrored."""
    a, b = first.tiny, second.tiny
    pairs = []
    for mirrored in (False, True):
        other = b[:, :, ::-1] if mirrored else b
        alike = a.reshape(len(a), -1) @ other.reshape(len(b), -1).T
        taken: set[tuple[str, int]] = set()
        for flat in np.argsort(-alike, axis=None, kind="stable"):
            i, j = divmod(int(flat), len(b))
            if ("a", i) in taken or ("b", j) in taken:
                continue
            taken |= {("a", i), ("b", j)}
            pairs.append((float(alike[i, j]), mirrored, i, j))
            if len(taken) == 2 * _PAIRS:
                break
    return [(mirrored, i, j) for _, mirrored, i, j in sorted(pairs, key=lambda one: -one[0])]


def _match_pictures(first: Frames, i: int, second: Frames, j: int, mirrored: bool) -> Match:
    (places, descriptors), (others, theirs) = first.features(i), second.features(j)
    one, two = first.pictures[i], second.pictures[j]
    if mirrored:
        others, theirs, two = _mirrored(others, theirs, two.shape[1]) + (two[:, ::-1],)
    at = _matches(descriptors, theirs)
    if len(at) < _LEAST_MATCHES:
        return Match(mirrored=mirrored)
    cv2.setRNGSeed(0)
    transform, kept = cv2.estimateAffine2D(
        others[at[:, 1]], places[at[:, 0]], ransacReprojThreshold=max(2.0, one.shape[0] / 64), maxIters=500
    )
    if transform is None or not _plausible(transform, one.shape, two.shape):
        return Match(mirrored=mirrored)
    agreement, overlap = _agreement(one, two, transform)
    return Match(int(kept.sum()), agreement, overlap, mirrored)


def _matches(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Index pairs [M, 2] of descriptors that are nearest to each other and pass the ratio test."""
    if len(a) < 2 or len(b) < 2:
        return np.zeros((0, 2), int)
    alike = a @ b.T
    nearest = alike.argmax(1)
    rows = np.arange(len(a))
    best = alike[rows, nearest]
    second = np.partition(alike, -2, axis=1)[:, -2]
    # Unit vectors: a distance is sqrt(2 - 2 cosine).
    passed = (2 - 2 * best) < _RATIO**2 * (2 - 2 * second)
    passed &= alike.argmax(0)[nearest] == rows
    return np.stack([rows[passed], nearest[passed]], 1)


def _mirrored(places: np.ndarray, descriptors: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Places and descriptors of the mirrored picture: columns of cells swap, directions change their sign."""
    flipped = places * np.float32([-1, 1]) + np.float32([width - 1, 0])
    cells = descriptors.reshape(-1, 4, 4, 8)[:, ::-1]
    return flipped, np.ascontiguousarray(cells[..., -np.arange(8) % 8]).reshape(-1, 128)


def _plausible(transform: np.ndarray, one: tuple[int, ...], two: tuple[int, ...]) -> bool:
    """Whether a copy can be mapped so: scaled within 1:4, hardly turned, sides not changed by more than a half."""
    across, down = transform[:, 0], transform[:, 1]
    scale = one[0] / two[0]
    lengths = np.hypot(*across), np.hypot(*down)
    if not all(0.25 < length / scale < 4 for length in lengths) or not 0.5 < lengths[0] / lengths[1] < 2:
        return False
    cosine = float(across @ down) / float(lengths[0] * lengths[1])
    return abs(cosine) < 0.2 and abs(float(across[1])) < 0.25 * float(lengths[0]) and across[0] > 0 < down[1]


def _agreement(one: np.ndarray, two: np.ndarray, transform: np.ndarray) -> tuple[float, float]:
    """Return the share of the common picture that agrees, and the common picture's share of the smaller one."""
    scale = _COMPARE_HEIGHT / one.shape[0]
    size = (max(2, round(one.shape[1] * scale)), _COMPARE_HEIGHT)
    shrunk = cv2.resize(one, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    to_small = np.diag([size[0] / one.shape[1], scale])
    moved = to_small @ transform
    # Shrink first: warping to a much smaller picture would alias.
    factor = min(1.0, float(np.hypot(*moved[:, 0])) * 1.2)
    other = cv2.resize(two, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    moved = moved @ np.diag([two.shape[1] / other.shape[1], two.shape[0] / other.shape[0], 1.0])
    warped = cv2.warpAffine(other, moved, size).astype(np.float32)
    inside = cv2.warpAffine(np.full(other.shape, 255, np.uint8), moved, size, flags=cv2.INTER_NEAREST) > 0
    inside &= cv2.erode(inside.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=1) > 0
    area = float(inside.sum())
    smaller = min(shrunk.size, abs(np.linalg.det(moved[:, :2])) * other.size)
    if area < 0.2 * smaller:
        return 0.0, area / max(smaller, 1.0)
    return _share(shrunk, warped, inside), min(1.0, area / smaller)


def _share(a: np.ndarray, b: np.ndarray, inside: np.ndarray) -> float:
    """The share of the pixels inside around which two pictures correlate, or are both flat and equally bright."""
    a, b = (cv2.GaussianBlur(one, (0, 0), 1.0) for one in (a, b))
    weight = inside.astype(np.float32)
    gain, offset = _line(b[inside], a[inside])
    b = b * gain + offset
    window = (_WINDOW, _WINDOW)

    def mean(values: np.ndarray) -> np.ndarray:
        return cv2.boxFilter(values * weight, -1, window, normalize=False) / count

    count = np.maximum(cv2.boxFilter(weight, -1, window, normalize=False), 1e-6)
    mean_a, mean_b = mean(a), mean(b)
    variance_a, variance_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    together = mean(a * b) - mean_a * mean_b
    noise = 9.0  # variance of what compression leaves of a flat place
    correlation = (together + noise) / np.sqrt(np.maximum(variance_a + noise, 0) * np.maximum(variance_b + noise, 0))
    agrees = (correlation > 0.6) & (np.abs(mean_a - mean_b) < 24)
    return float(agrees[inside].mean())


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """The gain and offset that map x to y, from their quartiles: a part that differs hardly moves them."""
    low_x, mid_x, high_x = np.percentile(x, [20, 50, 80])
    low_y, mid_y, high_y = np.percentile(y, [20, 50, 80])
    gain = float(np.clip((high_y - low_y + 4) / (high_x - low_x + 4), 0.4, 2.5))
    return gain, float(mid_y - gain * mid_x)


def _sift() -> cv2.SIFT:
    # Low-contrast points too: a dark or blurred picture has no others.
    return cv2.SIFT_create(FEATURES, contrastThreshold=0.015)
