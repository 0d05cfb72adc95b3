"""What places of a clip belong to: the numbers that tokens learn to know."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hy_core.data import ClipShape
from hy_world.attributes import BACKGROUNDS, COLOURS, MOTIONS, SHAPES
from hy_world.render import render
from hy_world.repa_targets import features, grouped, one_hot, repa_targets
from hy_world.scene import sample_scene
from hy_world.sources.scenes import SceneClip

NUMBERS, PARTS = 8, 16  # before and after the names


def scene(motion: str, objects: int = 1, frames: int = 17):
    rng = np.random.default_rng(3)
    while True:
        found = sample_scene(rng, "train", frames, objects=objects)
        if found.things[0].motion == motion:
            return found


def test_the_nearest_place_lies_in_the_thing_and_says_what_it_is():
    made = scene("right")
    (thing,), (track,) = made.things, made.tracks(17, 64, 64)
    found = features(made, 17, 64, 64, (5, 8, 8))
    named = NUMBERS + len(SHAPES) + len(COLOURS) + len(MOTIONS) + len(BACKGROUNDS)
    assert found.shape == (5, 8, 8, named + PARTS)
    for frame, x, y in ((0, track.x[0], track.y[0]), (4, track.x[13:].mean(), track.y[13:].mean())):
        place = found[frame, int(y // 8), int(x // 8)]
        away = np.array([x, y]) / 64 - (np.array([x, y]) // 8 + 0.5) / 8
        np.testing.assert_allclose(place[:2], 4 * away, atol=1e-6)
        assert place[2] > 0  # inside
        assert place[4] > 0.5 and abs(place[5]) < 1e-6  # it moves to the right
        names = place[NUMBERS:named]
        assert SHAPES[names[:4].argmax()] == thing.shape
        assert tuple(COLOURS)[names[4:12].argmax()] == thing.colour
        assert MOTIONS[names[12:21].argmax()] == "right"
        assert BACKGROUNDS[names[21:].argmax()] == made.background
    corner = found[0, 0 if track.y[0] > 32 else -1, 0 if track.x[0] > 32 else -1]
    assert corner[2] == -1


def test_each_place_tells_of_the_thing_that_is_nearest():
    made = scene("still", objects=2)
    found = features(made, 17, 64, 64, (5, 16, 16))
    for thing, track in zip(made.things, made.tracks(17, 64, 64), strict=True):
        place = found[0, int(track.y[0] // 4), int(track.x[0] // 4)]
        assert tuple(COLOURS)[place[NUMBERS + 4 : NUMBERS + 12].argmax()] == thing.colour


def test_a_picture_stands_still():
    made = scene("still", frames=1)
    found = features(made, 1, 64, 64, (1, 8, 8))
    assert not found[..., 4:6].any()


def test_parts_of_places_are_covered_as_they_are_drawn():
    made = scene("still", frames=1)
    found = features(made, 1, 64, 64, (1, 8, 8))[0, ..., -PARTS:]
    parts = found.reshape(8, 8, 4, 4).transpose(0, 2, 1, 3).reshape(32, 32)
    empty, drawn = (render(one, 1, 64, 64)[0].astype(float) for one in (replace(made, things=()), made))
    changed = np.abs(drawn - empty).sum(-1)
    changed = (changed / changed.max()).reshape(32, 2, 32, 2).mean((1, 3))
    assert np.abs(parts - parts.min() - 4 * changed).mean() < 0.1
    assert np.corrcoef(parts.ravel(), changed.ravel())[0, 1] > 0.98


def test_names_have_mean_zero_and_spread_one():
    every = np.stack([one_hot(name, SHAPES) for name in SHAPES])
    np.testing.assert_allclose(every.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(every.std(0), 1)


def test_latent_frames_are_means_of_four_but_the_first():
    np.testing.assert_allclose(grouped(np.arange(9.0)[None]), [[0, 2.5, 6.5]])


def test_a_batch_has_a_row_for_each_clip():
    pytest.importorskip("torch")
    made = [scene("up"), scene("spin")]
    clips = [SceneClip(one, 17, 64, 64) for one in made]
    batch = SimpleNamespace(shape=ClipShape(17, 64, 64), clips=clips)
    found = repa_targets(batch, (5, 4, 4))
    assert found.shape[:3] == (2, 5, 16)
    np.testing.assert_array_equal(found[1].reshape(5, 4, 4, -1), features(made[1], 17, 64, 64, (5, 4, 4)))
