"""The sets of shipped recipes: they can be read, rise, and name what their stages measure."""

from __future__ import annotations

import pytest
from hy_data import recipe as recipes
from hy_data.engine.plan import make_plan
from hy_data.select.rules import DERIVED
from hy_data.select.sets import direction, read_sets
from hy_data.table import BASE


@pytest.mark.parametrize("name", [name for name in recipes.named() if recipes.load(name).sets])
def test_sets_name_scores_of_the_stages_with_a_known_direction(name):
    recipe = recipes.load(name)
    plan = make_plan(recipe, recipes.load_plugins(recipe))
    scores = {score.name: score for _, score in plan.scores()}
    for spec in read_sets(recipe.sets):
        for score in spec.scores:
            assert score in scores, f"{spec.name}: {score}"
            direction(spec, score, scores[score].better)
        for rule in spec.rules:
            known = rule.score in scores or rule.score in BASE or rule.score in DERIVED
            assert known or rule.score == spec.frames_column, f"{spec.name}: {rule.score}"
    quality = recipe.duplicates.get("quality", "")
    assert not quality or scores[quality].better


def test_the_sets_of_videos_go_from_256p_to_720p():
    sets = {spec.name: spec for spec in read_sets(recipes.load("video").sets)}
    chain = ["256p", "360p", "540p", "720p", "sft"]
    assert [sets[name].parent for name in chain] == ["", *chain[:-1]]
    first, last = sets["256p"], sets["720p"]
    assert (first.height, first.width, first.frames) == (256, 256, 65)
    assert (last.height, last.width, last.frames) == (720, 1280, 129)
    assert sum(spec.kind == "image" for spec in sets.values()) == 2
