"""The judge of `benchmarks/own_clips.py`: hearts are hearts, and nothing else is."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
from hy_world import judge as judging
from hy_world.render import render
from hy_world.scene import sample_scene

FILE = Path(__file__).parents[2] / "benchmarks/own_clips.py"
spec = importlib.util.spec_from_file_location("own_clips", FILE)
own_clips = importlib.util.module_from_spec(spec)
spec.loader.exec_module(own_clips)


def test_hearts_are_told_from_the_shapes_of_the_world():
    scenes, texts = own_clips.draw(3, 12)
    assert all("heart" in text.lower() and "square" not in text.lower() for text in texts)
    others = [sample_scene(np.random.default_rng(seed), "all", objects=1) for seed in range(12)]
    with own_clips.hearts():
        hearts = [judging.judge(render(scene)).things[0].shape for scene in scenes]
        shapes = [judging.judge(render(scene)).things[0].shape for scene in others]
    assert hearts == ["heart"] * 12
    assert shapes == [scene.things[0].shape for scene in others]
    assert "heart" not in judging.SHAPES


def test_held_out_prompts_share_no_colour_motion_and_background_with_the_clips():
    known, _ = own_clips.draw(1, 40)
    wanted, _ = own_clips.draw(2, 30, known)
    assert not {own_clips._kind(one) for one in known} & {own_clips._kind(one) for one in wanted}
