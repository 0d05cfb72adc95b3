"""Scores count what was stated, and a base rate is what chance gives."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hy_world.captions import Caption, caption
from hy_world.codec import evaluate_codec
from hy_world.judge import judge
from hy_world.render import render
from hy_world.scene import sample_scene
from hy_world.score import Share, compare, right, score
from hy_world.text_to_video import GROUPS, draw, evaluate
from hypothesis import given
from hypothesis import strategies as st


def renders(group="combinations", count=60, objects=1, seed=0):
    scenes, stated = draw(group, count, seed, 17, 64, 64, objects)
    return scenes, stated, [judge(render(scene), objects) for scene in scenes]


@given(st.integers(1, 5000), st.integers(0, 5000))
def test_the_interval_holds_the_rate(total, part):
    share = Share(min(part, total), total)
    low, high = share.interval()
    assert 0 <= low <= share.rate <= high <= 1
    assert share.interval(z=1)[0] >= low - 1e-12


def test_the_interval_is_wilsons():
    # The worked example of R. G. Newcombe, Statistics in Medicine 17 (1998), table I.
    assert Share(81, 263).interval() == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert Share(0, 0).interval() == (0, 1)


@pytest.mark.parametrize("objects", [1, 2])
def test_right_clips_score_full_and_chance_is_chance(objects):
    scenes, stated, verdicts = renders(count=150, objects=objects)
    lines = {line.attribute: line for line in score(verdicts, verdicts, scenes, stated)}
    assert all(line.made.rate == line.real.rate == 1 for line in lines.values())
    counts = {"colour": 8, "shape": 4, "motion": 9, "background": 6, "size": 2}
    for name, kinds in counts.items():
        low = 0.5 / kinds
        # Two things may be matched either way, which helps chance.
        assert low < lines[name].base < (1.6 if objects == 1 else 2.2) / kinds, name
    assert lines["all"].base < 0.02 and lines["alone"].base == 1


def test_only_what_is_stated_counts():
    scenes, stated, verdicts = renders("wordings", 100)
    lines = {line.attribute: line for line in score(verdicts, verdicts, scenes, stated)}
    for name in ("colour", "shape", "size", "motion"):
        assert lines[name].made.total == sum(name in said for words in stated for said in words.stated)
    assert lines["background"].made.total == sum(words.background for words in stated)
    nothing = Caption("", (frozenset(),), False)
    assert right(verdicts[0], scenes[0], nothing)["all"] == [True]


def test_a_wrong_attribute_is_wrong_in_its_line_alone():
    scenes, stated, verdicts = renders(count=40)
    from dataclasses import replace

    turned = [replace(v, things=(replace(v.things[0], motion="none"),)) for v in verdicts]
    rates = {line.attribute: line.made.rate for line in score(turned, verdicts, scenes, stated)}
    assert rates["motion"] == rates["all"] == 0
    assert rates["colour"] == rates["shape"] == rates["size"] == rates["background"] == rates["alone"] == 1


def test_things_are_matched_in_either_order():
    scenes, stated, verdicts = renders(count=30, objects=2)
    from dataclasses import replace

    swapped = [replace(verdict, things=verdict.things[::-1]) for verdict in verdicts]
    for one, two, scene, words in zip(verdicts, swapped, scenes, stated, strict=True):
        assert right(one, scene, words) == right(two, scene, words)


def test_a_report_judges_what_was_made_for_each_prompt():
    scenes, _ = draw("combinations", 30, 5, 17, 64, 64, 1)

    def faithful(prompts):
        assert len(prompts) == 30
        yield from (render(scene) for scene in scenes)

    report = evaluate(faithful, "combinations", 30, 5)
    assert all(line.made.rate == 1 for line in report.lines)

    def deaf(prompts):
        rng = np.random.default_rng(1)
        yield from (render(sample_scene(rng, objects=1)) for _ in prompts)

    lines = {line.attribute: line for line in evaluate(deaf, "combinations", 150, 5).lines}
    for name in ("colour", "shape", "motion", "background"):
        base = lines[name].base
        assert abs(lines[name].made.rate - base) < 3.5 * (base * (1 - base) / 150) ** 0.5, name


def test_groups_hold_out_what_they_say():
    from hy_world.splits import is_heldout

    for group in GROUPS:
        scenes, stated = draw(group, 30, 0, 17, 64, 64, 1)
        kept = [is_heldout(t.colour, t.shape, t.motion, s.background) for s in scenes for t in s.things]
        assert all(kept) if group == "combinations" else not any(kept)
        assert len({words.text for words in stated}) > 20
    assert draw("train", 5, 0, 17, 64, 64, 1) == draw("train", 5, 0, 17, 64, 64, 1)


def test_a_codec_is_scored_by_what_it_keeps():
    import torch

    class Coarse(torch.nn.Module):
        """Rounds colours to steps of `step`; its codes are its clips."""

        def __init__(self, step):
            super().__init__()
            self.step = torch.nn.Parameter(torch.tensor(step))

        def encode_inference(self, x):
            self.mode = lambda: (x / self.step).round() * self.step
            return self

        def decode_inference(self, z):
            return z

    fine, rough = (evaluate_codec(Coarse(step), count=20) for step in (0.02, 2.0))
    assert fine.extra["psnr"] > 40 and rough.extra["psnr"] < 20
    rate = {
        report.extra["psnr"]: {line.attribute: line.made.rate for line in report.lines}
        for report in (fine, rough)
    }
    assert rate[fine.extra["psnr"]]["all"] == 1
    assert rate[rough.extra["psnr"]]["all"] < 0.2
    assert not any(math.isnan(line.base) for line in fine.lines)


def test_captions_of_a_report_are_those_the_scenes_were_drawn_with():
    scenes, stated = draw("train", 20, 3, 1, 64, 64, 2)
    for scene, words in zip(scenes, stated, strict=True):
        assert len(words.stated) == 2 and not any("motion" in said for said in words.stated)
        assert caption(np.random.default_rng(0), scene, 1).text


def test_what_holds_of_clips_is_compared_with_other_clips_scenes():
    line = compare("even", 4, lambda clip, scene: [clip == scene, scene % 2 == 0], [True, True, False])
    assert (line.made.right, line.made.total) == (4 + 2, 8)
    assert line.base == 6 / 24  # of three other scenes each: never its own, and even ones for 6 of 12
    assert line.real.rate == 2 / 3
