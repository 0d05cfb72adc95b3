"""Data recipes: read, overridden, written back, and wrong ones refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hy_core.errors import MissingError, UsageError
from hy_data import recipe


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def test_every_named_recipe_names_registered_stages() -> None:
    for name in recipe.named():
        loaded = recipe.load(name)
        known = recipe.load_plugins(loaded).stages()
        assert {*loaded.stages, *loaded.finish} <= set(known)
        assert loaded.name == name


def test_overrides_reach_tables_and_keep_their_types(tmp_path: Path) -> None:
    path = write(tmp_path, 'stages = ["text"]\nplugins = ["more.py"]')
    loaded = recipe.load(
        path, ["stage.text.frames=3", "engine.executor=ray", "sets.256p.keep=0.5", "engine.tries=4"]
    )
    assert loaded.stage == {"text": {"frames": 3}} and loaded.engine.executor == "ray"
    assert loaded.sets == {"256p": {"keep": 0.5}} and loaded.engine.tries == 4
    assert loaded.plugins == (str(tmp_path / "more.py"),) and loaded.name == "mine"


def test_a_recipe_written_back_is_the_same(tmp_path: Path) -> None:
    text = """stages = ["text"]
[stage.text]
frames = 3
[sets."256p"]
from = "a \\"quoted\\" \\u007f word"
size = [256, 256]
limits = { sharp = { min = 1.5 } }
[sets.empty]
"""
    loaded = recipe.load(write(tmp_path, text), ["engine.queue=7"])
    assert recipe.load(write(tmp_path, recipe.to_toml(loaded))) == loaded


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ('stages = ["a"]\nstagse = 1', [], "unknown key 'stagse'"),
        ('stages = ["a", "a"]', [], "the stage 'a' comes twice"),
        ('stages = ["shots"]\n[stage.shot]\nx = 1', [], "[stage.shot] is for a stage that doesn't run"),
        ('stages = ["a"]\n[stage]\na = 1', [], "stage.a is not a table"),
        ('stages = ["a"]', ["engine.tires=1"], "unknown key 'tires'"),
        ('stages = ["a"]', ["engine.tries=0"], "engine: tries: 0 is not between 1 and 100"),
        ('stages = ["a"]', ["stages.x=1"], "stages is not a table"),
        ('stages = ["a"]', ["workers"], "needs key=value"),
        ("stages = 1", [], "needs a list"),
    ],
)
def test_wrong_recipes_are_refused(tmp_path: Path, text: str, overrides: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        recipe.load(write(tmp_path, text), overrides)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_an_unknown_recipe_is_missing() -> None:
    with pytest.raises(MissingError) as caught:
        recipe.load("nothing-like-it")
    assert "video" in (caught.value.hint or "")
