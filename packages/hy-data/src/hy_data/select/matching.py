"""Whether two clips show the same frames: local features, an affine map between the pictures, and what agrees under it.

The method: SIFT with the ratio test (Lowe 2004), the map by RANSAC, then the second picture is warped onto the first
and the share of the frame that agrees is measured. Inliers alone would merge other people before the same wall.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

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
_PAIRS = 4
_REFINED = 3
_BY_FEATURES = 4
_LEAST_MOTION = 0.01
_MOVES = 12.0
_CERTAIN = 0.93
_LEAST_TEXTURE = 0.1
_NOISE = 9.0  # variance that compression leaves of a flat place
_TEXTURED = 64.0
_CORRELATION = 0.6


@dataclass(frozen=True)
class Match:
    """How well two clips match at their most similar frames.

    `agreement`: the share of the textured common picture that agrees, 0 to 1. `texture`: the textured share of the
    common picture. `overlap`: the common picture as a share of the smaller one. `motion`: the agreement where the
    first clip moves; the same as `agreement` if little or all of it does. `inliers`: local features that one
    affine map explains; 0 if none were needed. `mirrored`: one is the mirror image of the other. `whole`: the map was
    found without features, from the whole pictures laid on each other.
    """

    inliers: int = 0
    agreement: float = 0.0
    texture: float = 0.0
    overlap: float = 0.0
    motion: float = 0.0
    mirrored: bool = False
    whole: bool = False

    @property
    def worth(self) -> float:
        """What the best match of several frames has most of."""
        seen = min(1.0, self.overlap / 0.8) * min(1.0, self.texture / _LEAST_TEXTURE)
        return self.agreement * seen * (0.75 + 0.25 * self.motion)


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
        small = np.stack(
            [
                cv2.GaussianBlur(
                    cv2.resize(one, (_TINY, _TINY), interpolation=cv2.INTER_AREA).astype(np.float32),
                    (0, 0),
                    1,
                )
                for one in self.pictures
            ]
        )
        small -= small.mean((1, 2), keepdims=True)
        return small / np.maximum(np.linalg.norm(small, axis=(1, 2), keepdims=True), 1e-6)

    @cached_property
    def moving(self) -> np.ndarray:
        """Where pictures differ from their median, bool [72, W]."""
        height, width = self.pictures[0].shape
        size = (max(2, round(width * _COMPARE_HEIGHT / height)), _COMPARE_HEIGHT)
        small = np.stack([cv2.resize(one, size, interpolation=cv2.INTER_AREA) for one in self.pictures])
        far = np.abs(small - np.median(small, axis=0)).max(0).astype(np.float32)
        return cv2.blur(far, (5, 5)) > _MOVES

    def features(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return places [N, 2] in pixels (x, y) and root SIFT descriptors, float32 [N, 128], of a picture."""
        if index not in self._features:
            points, found = _sift().detectAndCompute(self.pictures[index], None)
            places = np.array([point.pt for point in points], np.float32).reshape(-1, 2)
            descriptors = np.asarray(found, np.float32) if points else np.zeros((0, 128), np.float32)
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
    """Return the best match of any frames of two clips, also if one is mirrored.

    Copies that show the whole picture match without local features; those are tried for the others.
    """
    pairs = _likely_pairs(first, second)
    plain = [_match_whole(first, second, pair, refine=False) for pair in pairs]
    best = max(plain, key=lambda one: one.worth)
    if best.worth > _CERTAIN:
        return best
    order = sorted(range(len(pairs)), key=lambda at: -plain[at].worth)[:_REFINED]
    later = [partial(_match_whole, first, second, pairs[at], refine=True) for at in order]
    later += [partial(_match_features, first, second, pair) for pair in pairs[:_BY_FEATURES]]
    for attempt in later:
        found = attempt()
        if found.worth > best.worth:
            best = found
        if best.worth > _CERTAIN:
            break
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


def _match_whole(first: Frames, second: Frames, pair: tuple[bool, int, int], refine: bool) -> Match:
    mirrored, i, j = pair
    one, two = first.pictures[i], second.pictures[j]
    transform = np.diag([one.shape[1] / two.shape[1], one.shape[0] / two.shape[0], 1.0])[:2]
    found = compare(one, two[:, ::-1] if mirrored else two, transform, first.moving, refine)
    return Match(0, *found, mirrored=mirrored, whole=True)


def _match_features(first: Frames, second: Frames, pair: tuple[bool, int, int]) -> Match:
    mirrored, i, j = pair
    one, two = first.pictures[i], second.pictures[j]
    (places, descriptors), (others, theirs) = first.features(i), second.features(j)
    if mirrored:
        two = two[:, ::-1]
        others, theirs = _mirrored(others, theirs, two.shape[1])
    at = _matches(descriptors, theirs)
    if len(at) < _LEAST_MATCHES:
        return Match(mirrored=mirrored)
    cv2.setRNGSeed(0)
    transform, kept = cv2.estimateAffine2D(
        others[at[:, 1]], places[at[:, 0]], ransacReprojThreshold=max(2.0, one.shape[0] / 64), maxIters=500
    )
    if transform is None or not _plausible(transform, one.shape, two.shape):
        return Match(mirrored=mirrored)
    found = compare(one, two, transform, first.moving, refine=True)
    return Match(int(kept.sum()), *found, mirrored=mirrored)


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
    flipped = np.stack([width - 1 - places[:, 0], places[:, 1]], 1)
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


def compare(
    one: np.ndarray, two: np.ndarray, transform: np.ndarray, moving: np.ndarray, refine: bool
) -> tuple[float, float, float, float]:
    """Return agreement, texture, overlap and motion (see `Match`) if `transform` [2, 3] maps the second to the first.

    `moving`: where the first clip moves, bool [72, W].
    """
    scale = _COMPARE_HEIGHT / one.shape[0]
    size = (moving.shape[1], _COMPARE_HEIGHT)
    a = cv2.resize(one, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    to_small = np.diag([size[0] / one.shape[1], scale])
    moved = to_small @ transform
    # Shrink first: warping to a much smaller picture would alias.
    factor = min(1.0, float(np.hypot(*moved[:, 0])) * 1.2)
    other = cv2.resize(two, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA).astype(np.float32)
    moved = moved @ np.diag([two.shape[1] / other.shape[1], two.shape[0] / other.shape[0], 1.0])
    if refine:
        moved = _refined(a, other, moved)
    b = cv2.warpAffine(other, moved, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inside = cv2.warpAffine(np.full(other.shape, 255, np.uint8), moved, size, flags=cv2.INTER_NEAREST) > 0
    smaller = min(a.size, abs(float(np.linalg.det(moved[:, :2]))) * other.size)
    area = float(inside.sum())
    if area < 0.2 * smaller:
        return 0.0, 0.0, area / max(smaller, 1.0), 0.0
    agrees, textured = _agreeing(a, b, inside)
    number, moves = int(textured.sum()), textured & moving
    agreement = float(agrees[textured].mean()) if number else 0.0
    motion = float(agrees[moves].mean()) if moves.sum() > _LEAST_MOTION * number else agreement
    return agreement, number / area, min(1.0, area / smaller), motion


def _agreeing(a: np.ndarray, b: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where two pictures agree, and where either is textured, bool [H, W].

    Flat places agree in any two pictures, so they don't count, and a place that is textured in one picture only doesn't
    agree.
    """
    a, b = (cv2.GaussianBlur(one, (0, 0), 1.0) for one in (a, b))
    weight = inside.astype(np.float32)
    gain, offset = _line(b[inside], a[inside])
    b = b * gain + offset
    window = (_WINDOW, _WINDOW)
    count = np.maximum(cv2.boxFilter(weight, -1, window, normalize=False), 1e-6)

    def mean(values: np.ndarray) -> np.ndarray:
        return cv2.boxFilter(values * weight, -1, window, normalize=False) / count

    mean_a, mean_b = mean(a), mean(b)
    variance_a = np.maximum(mean(a * a) - mean_a**2, 0)
    variance_b = np.maximum(mean(b * b) - mean_b**2, 0)
    together = mean(a * b) - mean_a * mean_b
    correlation = (together + _NOISE) / np.sqrt((variance_a + _NOISE) * (variance_b + _NOISE))
    textured = (np.maximum(variance_a, variance_b) > _TEXTURED) & inside
    return correlation > _CORRELATION, textured


def _refined(a: np.ndarray, b: np.ndarray, transform: np.ndarray) -> np.ndarray:
    """The map from b to a, refined by the pictures themselves (ECC); unchanged where that doesn't converge."""
    start = cv2.invertAffineTransform(transform).astype(np.float32)
    rule = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 15, 1e-3)
    try:
        _, found = cv2.findTransformECC(a, b, start, cv2.MOTION_AFFINE, rule)
    except cv2.error:
        return transform
    back = cv2.invertAffineTransform(found)
    return back if np.abs(back - transform)[:, 2].max() < 0.1 * max(a.shape) else transform


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """The gain and offset that map x to y, from their quartiles: a part that differs hardly moves them."""
    low_x, mid_x, high_x = np.percentile(x, [20, 50, 80])
    low_y, mid_y, high_y = np.percentile(y, [20, 50, 80])
    gain = float(np.clip((high_y - low_y + 4) / (high_x - low_x + 4), 0.4, 2.5))
    return gain, float(mid_y - gain * mid_x)


def _sift() -> Any:
    # Low-contrast points too: a dark or blurred picture has no others.
    create: Any = getattr(cv2, "SIFT_create")  # noqa: B009 - its type stub lacks it
    return create(FEATURES, contrastThreshold=0.015)
