"""The bucket sampler: every clip once, over any ranks and any splits of resumes; buckets and batch sizes."""

from __future__ import annotations

import json
import time
from collections import Counter

import numpy as np
import pytest
from hy_core.data import ClipShape
from hy_core.errors import UsageError
from hy_data.buckets import Assignment, assign, make_buckets, tokens
from hy_data.sampler import BatchIndices, BucketSampler, balanced_weights, batch_sizes
from hypothesis import given, settings
from hypothesis import strategies as st

SHAPES = (ClipShape(1, 64, 64), ClipShape(17, 64, 64), ClipShape(17, 48, 80), ClipShape(33, 64, 64))


def assignment(bucket: list[int]) -> Assignment:
    return Assignment(SHAPES, np.array(bucket, np.int32), {})


def real(batch: BatchIndices) -> list[int]:
    return batch[: len(batch) - batch.padded]


def step(samplers: list[BucketSampler]) -> list[BatchIndices]:
    return [next(iter(one)) for one in samplers]


buckets = st.lists(st.integers(-1, 3), min_size=1, max_size=60).filter(lambda row: max(row) >= 0)
rows = st.tuples(*[st.integers(1, 5)] * 4)
legs = st.lists(st.tuples(st.integers(1, 5), st.integers(0, 6)), min_size=1, max_size=4)


@settings(max_examples=150, deadline=None)
@given(buckets, rows, legs, st.integers(0, 9), st.sampled_from(["smaller", "pad"]))
def test_every_clip_comes_once_in_an_epoch_over_all_ranks_and_resumes(
    bucket: list[int], rows: tuple[int, ...], legs: list[tuple[int, int]], seed: int, remainder: str
) -> None:
    """`legs` are (ranks, steps): the run is stopped after these steps and continued with the next number of ranks."""
    data, seen, state = assignment(bucket), Counter[int](), None
    for ranks, steps in [*legs, (legs[0][0], 10**6)]:
        samplers = [
            BucketSampler(data, rows, rank=rank, ranks=ranks, seed=seed, remainder=remainder)  # type: ignore[arg-type]
            for rank in range(ranks)
        ]
        for one in samplers:
            if state is not None:
                one.load_state_dict(json.loads(json.dumps(state)))
        for _ in range(steps):
            expected = samplers[0].remaining
            together = step(samplers)
            assert len({batch.bucket for batch in together}) == 1
            for batch in together:
                assert 1 <= len(batch) <= rows[batch.bucket]
                assert all(data.bucket[index] == batch.bucket for index in batch)
                seen.update(real(batch))
            if remainder == "pad":
                assert {len(batch) for batch in together} == {rows[together[0].bucket]}
            state = together[0].state
            assert all(batch.state == state for batch in together)
            if samplers[0].epoch:
                break
            assert samplers[0].remaining == expected - 1
        if state is not None and state["epoch"]:
            break
    assert seen == Counter(index for index, one in enumerate(bucket) if one >= 0)


def test_an_epoch_is_deterministic_and_the_next_differs() -> None:
    data = assignment([i % 4 for i in range(200)])
    one, two = BucketSampler(data, (4, 2, 2, 1), seed=3), BucketSampler(data, (4, 2, 2, 1), seed=3)
    first, second = list(one), list(one)
    assert first == list(two) and second == list(two)
    assert first != second and first != list(BucketSampler(data, (4, 2, 2, 1), seed=4))
    assert len(first) == len(one) and one.epoch == 2


def test_the_bucket_with_the_most_tokens_comes_first() -> None:
    data = assignment([0] * 500 + [3])
    for seed in range(5):
        assert next(iter(BucketSampler(data, (4, 1, 1, 1), seed=seed))).bucket == 3
    seeds = range(20)
    late = [next(iter(BucketSampler(data, (4, 1, 1, 1), seed=s, largest_first=False))).bucket for s in seeds]
    assert set(late) == {0}


def test_a_state_of_other_clips_is_refused() -> None:
    sampler = BucketSampler(assignment([0, 1, 2, 3]), (1,) * 4)
    state = BucketSampler(assignment([0, 1, 2, 2]), (1,) * 4).state_dict()
    with pytest.raises(UsageError, match="other clips"):
        sampler.load_state_dict(state)


def test_nothing_to_draw_says_why() -> None:
    none = Assignment(SHAPES, np.full(3, -1, np.int32), {"fewer than 17 frames": 3})
    with pytest.raises(UsageError) as caught:
        BucketSampler(none, (1,) * 4)
    assert "3 have fewer than 17 frames" in str(caught.value.hint)


def test_weights_are_kept_to_within_one_draw_an_epoch() -> None:
    data = assignment([1] * 90 + [0] * 10)
    weights = balanced_weights(np.array([0] * 90 + [1] * 10), alpha=1, most=100)
    sampler = BucketSampler(data, (4,) * 4, weights=weights)
    for _ in range(3):
        out = sampler.left_out()
        seen = Counter(index for batch in sampler for index in batch)
        assert abs(sum(seen[i] for i in range(90)) - 50) <= 1
        assert all(seen[i] == 5 for i in range(90, 100))
        assert out == 100 - len(seen)


def test_balanced_weights_are_bounded_and_defined_without_concepts() -> None:
    weights = balanced_weights(np.array([0] * 100 + [1] + [-1]), alpha=1, most=5)
    assert weights[0] == 1 and weights[100] == 5 and weights[101] == 1
    assert (balanced_weights(np.array([-1, -1])) == 1).all()


def test_clips_go_to_the_longest_duration_and_the_nearest_aspect() -> None:
    shapes = make_buckets([1, 17, 33], 64 * 64, [9 / 16, 1.0, 16 / 9])
    assert ClipShape(17, 48, 80) in shapes and ClipShape(17, 80, 48) in shapes
    frames = np.array([1, 16, 17, 40, 40, 40, 40, 0])
    heights = np.array([64, 64, 64, 90, 160, 20, 64, 64])
    widths = np.array([64, 64, 64, 160, 90, 20, 640, 64])
    found = assign(shapes, frames, heights, widths)
    picked = [None if one < 0 else shapes[one] for one in found.bucket]
    assert picked[:5] == [
        ClipShape(1, 64, 64),
        ClipShape(1, 64, 64),
        ClipShape(17, 64, 64),
        ClipShape(33, 48, 80),
        ClipShape(33, 80, 48),
    ]
    assert picked[5:] == [None] * 3
    assert sum(found.reasons.values()) == 3 and sum(found.counts()) == 5
    assert set(found.reasons) == {
        "a picture smaller than its bucket",
        "an aspect ratio over 1.5 times off every bucket",
        "no pictures",
    }


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 2000), st.integers(0, 2000)), max_size=30))
def test_every_clip_has_a_bucket_or_a_reason(clips: list[tuple[int, int, int]]) -> None:
    shapes = make_buckets([17, 65], 128 * 128)
    columns = np.array(clips, np.int64).reshape(-1, 3).T
    found = assign(shapes, *columns)
    assert sum(found.counts()) + sum(found.reasons.values()) == len(clips)


def test_batches_fill_a_budget_of_tokens() -> None:
    shapes = make_buckets([1, 65, 129], 256 * 256, [1.0])
    assert [tokens(shape) for shape in shapes] == [256, 17 * 256, 33 * 256]
    assert batch_sizes(shapes, token_budget=10000) == (39, 2, 1)
    assert batch_sizes(shapes, clips=3) == (3, 3, 3)
    with pytest.raises(UsageError, match="8448 tokens, the budget is 8000"):
        batch_sizes(shapes, token_budget=8000)
    with pytest.raises(UsageError, match="either"):
        batch_sizes(shapes)


@pytest.mark.slow
def test_a_million_clips_on_eight_ranks() -> None:
    rng = np.random.default_rng(0)
    shapes = make_buckets([1, 33, 65, 129], 256 * 256)
    begin = time.process_time()
    found = assign(
        shapes, rng.integers(1, 300, 10**6), rng.integers(200, 1100, 10**6), rng.integers(200, 2000, 10**6)
    )
    sampler = BucketSampler(found, batch_sizes(shapes, token_budget=30000), rank=3, ranks=8)
    made = time.process_time() - begin
    count = sum(len(batch) - batch.padded for batch in sampler)
    took = time.process_time() - begin
    print(f"buckets and order {made:.2f} s, an epoch of {len(sampler)} steps {took - made:.2f} s of CPU")
    assert abs(count - sum(found.counts()) / 8) < 200
    assert took < 60
