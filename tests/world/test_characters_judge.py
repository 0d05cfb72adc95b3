"""The judge of characters is right on real renders and spoilt ones, and sees no link where there is none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hy_world.characters import FRAMINGS, Look, sample_stage
from hy_world.characters_geometry import truth
from hy_world.characters_judge import NONE, judge_stage
from hy_world.characters_render import face_masks, render_stage
from hy_world.characters_score import change, mouth_correlation, score_stages
from hy_world.sources.characters import sample_talking


def spoilt(video, rng):
    """About 27 dB: a little blur in space and time, and noise."""
    soft = np.pad(video.astype(np.float32), ((1, 1), (2, 2), (2, 2), (0, 0)), mode="edge")
    for axis, side in ((0, 0.08), (1, 0.23), (2, 0.23)):
        soft = side * np.roll(soft, 1, axis) + (1 - 2 * side) * soft + side * np.roll(soft, -1, axis)
    return np.clip(soft[1:-1, 2:-2, 2:-2] + rng.normal(0, 5, video.shape), 0, 255).astype(np.uint8)


def score(count, framing, change=lambda video, rng: video, size=(64, 64), people=1):
    rng = np.random.default_rng(11)
    stages = [sample_talking(rng, "all", 17, framing, people)[0] for _ in range(count)]
    return score_stages([change(render_stage(stage, *size), rng) for stage in stages], stages)


@pytest.mark.parametrize("framing", FRAMINGS)
def test_real_renders_are_judged_right(framing):
    result = score(20, framing)
    assert result.correlation > 0.98 and abs(result.shuffled) < 0.2
    assert result.expression.rate >= 0.95 and result.identity.rate >= 0.95 and result.background.rate == 1
    if framing != "face":
        assert result.joints.rate > 0.99


@pytest.mark.parametrize("framing", FRAMINGS)
def test_spoilt_clips_are_judged_nearly_right(framing):
    result = score(20, framing, spoilt)
    assert result.correlation > 0.95 and abs(result.shuffled) < 0.2
    assert result.expression.rate >= 0.85 and result.identity.rate >= 0.8
    if framing != "face":
        assert result.joints.rate > 0.97


def test_arms_like_the_skin_that_blur_are_no_face():
    """Orange sleeves beside a tan face, each frame mixed with two before and two behind."""
    rng, look = np.random.default_rng(5), Look("tan", "red", "long", "square", "pink", "orange")
    for _ in range(8):
        (stage, _) = sample_talking(rng, "train", 17, "upper")
        (one,) = stage.characters
        stage = replace(stage, background="checkerboard", characters=(replace(one, look=look),))
        frames = np.pad(
            render_stage(stage, 64, 64).astype(float), ((2, 2), (0, 0), (0, 0), (0, 0)), mode="edge"
        )
        mixed = np.mean([frames[shift : shift + 17] for shift in range(5)], 0)
        for axis in (1, 2):
            mixed = (np.roll(mixed, 1, axis) + mixed + np.roll(mixed, -1, axis)) / 3
        (seen,) = judge_stage(mixed.round().astype(np.uint8), "upper")
        assert seen.look == look


def test_other_sizes_and_two_people():
    for size, people in (((96, 80), 1), ((64, 128), 2)):
        result = score(8, "upper", size=size, people=people)
        assert result.correlation > 0.97 and result.joints.rate > 0.98
        assert result.identity.rate >= 0.9 and result.expression.rate >= 0.9


def test_shuffled_clips_score_low():
    rng = np.random.default_rng(12)
    stages = [sample_stage(rng, "all", 17, "full") for _ in range(16)]
    videos = [render_stage(stage) for stage in stages]
    wrong = score_stages(videos[1:] + videos[:1], stages)
    assert abs(wrong.correlation) < 0.25 and wrong.expression.rate < 0.6
    assert wrong.identity.rate < 0.1 and wrong.joints.rate < 0.8


def test_a_changing_expression_is_followed():
    rng = np.random.default_rng(13)
    right = []
    for _ in range(12):
        stage = sample_stage(rng, "all", 17, "face", changing=True)
        seen = judge_stage(render_stage(stage), "face")[0]
        real = stage.characters[0].performance.expressions
        right += [one == other for one, other in zip(seen.expressions, real, strict=True)]
    assert np.mean(right) > 0.85


def test_an_empty_clip_shows_nobody():
    for value in (0, 128, 255):
        seen = judge_stage(np.full((5, 64, 64, 3), value, np.uint8), "upper")[0]
        assert seen.look.skin == NONE and seen.expression == NONE and np.isnan(seen.mouth).all()
        assert np.isnan(mouth_correlation(seen, np.linspace(0, 1, 5)))


def test_change_is_told_inside_and_outside():
    rng = np.random.default_rng(14)
    stage = sample_stage(rng, "all", 9, "face")
    one = stage.characters[0]
    moved = replace(one.performance, mouth=1 - one.performance.mouth)
    other = replace(stage, characters=(replace(one, performance=moved),))
    inside, outside = change(render_stage(stage), render_stage(other), face_masks(stage)[0])
    assert inside > 1 and outside == 0
    assert truth(stage)[0].body_height <= 64
