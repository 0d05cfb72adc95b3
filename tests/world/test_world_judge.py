"""The judge is right on real renders, blurred and noisy ones too, and doesn't see what isn't there."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hy_world.judge import NONE, judge, position_errors
from hy_world.render import render
from hy_world.scene import sample_scene
from hy_world.score import match
from hypothesis import given, settings
from hypothesis import strategies as st

ATTRIBUTES = ("colour", "shape", "size", "motion")


def blurred(video, rng):
    """About 30 dB: half the resolution in space, smeared in time, and noise."""
    half = video.astype(np.float32)
    half = half.reshape(len(video), video.shape[1] // 2, 2, video.shape[2] // 2, 2, 3).mean((2, 4))
    big = half.repeat(2, 1).repeat(2, 2)
    for axis in (1, 2):
        big = (np.roll(big, 1, axis) + 2 * big + np.roll(big, -1, axis)) / 4
    big[1:-1] = (big[:-2] + 6 * big[1:-1] + big[2:]) / 8
    return np.clip(big + rng.normal(0, 5, big.shape), 0, 255).astype(np.uint8)


def psnr(one, other):
    return 10 * np.log10(255**2 / np.mean((one.astype(np.float32) - other) ** 2))


def accuracy(count, objects, change=lambda video, rng: video, frames=17, height=64, width=64, split="all"):
    rng = np.random.default_rng(11)
    good = dict.fromkeys((*ATTRIBUTES, "background", "alone"), 0)
    for _ in range(count):
        scene = sample_scene(rng, split, frames, height, width, objects)
        verdict = match(judge(change(render(scene, frames, height, width), rng), objects), scene)
        for name in ATTRIBUTES:
            pairs = zip(verdict.things, scene.things, strict=True)
            good[name] += all(getattr(seen, name) == getattr(thing, name) for seen, thing in pairs)
        good["background"] += verdict.background == scene.background
        good["alone"] += verdict.stray < 0.05
    return {name: right / count for name, right in good.items()}


@pytest.mark.parametrize("objects", [1, 2])
def test_real_renders_are_judged_right(objects):
    assert min(accuracy(120, objects).values()) >= 0.995


@pytest.mark.parametrize("objects", [1, 2])
def test_clips_at_thirty_decibels_are_judged_right(objects):
    rng = np.random.default_rng(0)
    clips = [render(sample_scene(rng, "all", objects=objects)) for _ in range(20)]
    assert 26 < np.mean([psnr(blurred(clip, rng), clip) for clip in clips]) < 31
    assert min(accuracy(80, objects, blurred).values()) >= 0.98


def test_pictures_and_other_shapes_are_judged_right():
    assert min(accuracy(60, 1, frames=1).values()) >= 0.98
    assert min(accuracy(40, 2, height=64, width=96).values()) >= 0.98
    assert min(accuracy(40, 1, frames=33, height=96, width=80).values()) >= 0.97


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2]))
@settings(max_examples=50, deadline=None)
def test_seen_positions_agree_with_the_truth(seed, objects):
    scene = sample_scene(np.random.default_rng(seed), "all", objects=objects)
    verdict = match(judge(render(scene), objects), scene)
    assert position_errors(verdict, scene, 64, 64).max() < 1.5
    for seen, track in zip(verdict.things, scene.tracks(), strict=True):
        assert np.abs(seen.radius / track.radius - 1).max() < 0.15


def test_an_empty_clip_has_no_things():
    for background in ("white", "sunset", "checkerboard"):
        from hy_world.render import backdrop

        empty = np.repeat(backdrop(background, 64, 64).astype(np.uint8)[None], 17, axis=0)
        for objects in (1, 2):
            verdict = judge(empty, objects)
            assert verdict.background == background
            assert [seen.colour for seen in verdict.things] == [NONE] * objects


def test_noise_is_no_shape():
    rng = np.random.default_rng(0)
    smooth = [
        rng.uniform(0, 255, (17, 8, 8, 3)).repeat(8, 1).repeat(8, 2).astype(np.uint8) for _ in range(20)
    ]
    verdicts = [judge(clip) for clip in smooth]
    assert sum(verdict.things[0].shape == NONE for verdict in verdicts) >= 18
    assert sum(verdict.stray > 0.05 for verdict in verdicts) >= 18


def test_a_second_thing_is_noticed():
    rng = np.random.default_rng(0)
    stray = [judge(render(sample_scene(rng, "all", objects=2)), 1).stray for _ in range(60)]
    assert np.mean([value > 0.05 for value in stray]) > 0.9


def test_a_thing_that_comes_late_is_judged_by_the_frames_it_is_in():
    rng = np.random.default_rng(3)
    for _ in range(20):
        scene = sample_scene(rng, "all", objects=1)
        video = render(scene)
        video[:3] = np.median(video, axis=0)
        seen = judge(video).things[0]
        assert seen.colour == scene.things[0].colour and seen.shape == scene.things[0].shape


def test_judging_takes_under_thirty_milliseconds():
    rng = np.random.default_rng(0)
    clips = [render(sample_scene(rng, "all", objects=1)) for _ in range(30)]
    judge(clips[0])
    times = []
    for clip in clips:
        start = time.process_time()
        judge(clip)
        times.append(time.process_time() - start)
    assert np.median(times) < 0.03
