"""Boxes in pictures: overlaps, suppression, cover, and the largest free rectangle."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hy_data.boxes import boxes_of, filled, largest_free, overlaps, strongest


def test_overlap_is_intersection_over_union() -> None:
    boxes = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30.0]])
    assert np.allclose(overlaps(boxes, boxes), [[1, 1 / 3, 0], [1 / 3, 1, 0], [0, 0, 1]])
    assert overlaps(boxes[:0], boxes).shape == (0, 3)


def test_the_strongest_of_overlapping_boxes_remains_in_each_class() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [2, 0, 12, 10], [50, 0, 60, 10.0]])
    scores = np.array([0.5, 0.9, 0.6, 0.3])
    assert strongest(boxes, scores, 0.5).tolist() == [1, 3]
    assert strongest(boxes, scores, 0.5, np.array([0, 1, 0, 0])).tolist() == [1, 2, 3]
    assert strongest(boxes[:0], scores[:0], 0.5).tolist() == []


def test_polygons_cover_their_union() -> None:
    square = np.array([[0, 0], [49, 0], [49, 49], [0, 49.0]])
    assert filled(square[None], (100, 100)) == pytest.approx(0.25)
    assert filled(np.stack([square, square + [25, 0]]), (100, 100)) == pytest.approx(0.375)
    diamond = np.array([[50, 0], [100, 50], [50, 100], [0, 50.0]])
    assert filled(diamond[None], (101, 101)) == pytest.approx(0.5, abs=0.02)
    assert boxes_of(diamond[None]).tolist() == [[0, 0, 100, 100]]


def test_the_largest_free_rectangle_is_that_of_a_search_over_all() -> None:
    rng = np.random.default_rng(0)
    height, width = 7, 9
    for count in (0, 1, 2, 4, 6):
        low = rng.integers(0, [width - 1, height - 1], (count, 2))
        boxes = np.concatenate([low, low + rng.integers(1, 4, (count, 2))], 1).astype(float)
        taken = np.zeros((height, width), bool)
        for left, top, right, bottom in boxes.astype(int):
            taken[top:bottom, left:right] = True
        best = max(
            (bottom - top) * (right - left)
            for top, bottom in itertools.combinations(range(height + 1), 2)
            for left, right in itertools.combinations(range(width + 1), 2)
            if not taken[top:bottom, left:right].any()
        )
        left, top, right, bottom = largest_free(boxes, (height, width))
        assert (bottom - top) * (right - left) == best
        assert not taken[top:bottom, left:right].any()
    assert largest_free(np.array([[-1, -1, 99, 99.0]]), (height, width)) == (0, 0, 0, 0)
