from __future__ import annotations

import pytest
from hy_core.errors import MissingError, UsageError
from hy_train import recipe


@pytest.mark.parametrize("name", recipe.builtin())
def test_every_recipe_that_ships_is_read(name):
    assert recipe.load(name).steps > 0


def test_a_value_can_be_changed_by_its_dotted_name():
    loaded = recipe.load("pocket-vae", ["optim.lr=1e-5", "steps=7", "model.groups=2"])
    assert (loaded.optim.lr, loaded.steps, loaded.model["groups"]) == (1e-5, 7, 2)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"objective": "vae", "steps": 1, "batch": 1, "stepz": 2}, "stepz"),
        ({"objective": "vae", "steps": "many", "batch": 1}, "needs a whole number"),
        ({"objective": "vae", "steps": True, "batch": 1}, "needs a whole number"),
        ({"objective": "vae", "batch": 1}, "steps must be given"),
        ({"objective": "vae", "steps": 1, "batch": 1, "optim": {"rate": 1}}, "rate"),
        ({"objective": "vae", "steps": 1, "batch": 1, "plugins": "world"}, "needs a list"),
    ],
)
def test_what_does_not_fit_is_named(table, words):
    with pytest.raises(UsageError, match=words):
        recipe.parse(table)


def test_a_recipe_that_is_not_there_names_those_that_are():
    with pytest.raises(MissingError) as error:
        recipe.load("pocket-vea")
    assert "pocket-vae" in error.value.hint


def test_a_file_that_is_no_toml_is_one_line(tmp_path):
    file = tmp_path / "broken.toml"
    file.write_bytes(b"steps = \xff")
    with pytest.raises(UsageError, match="is not UTF-8 text"):
        recipe.load(str(file))
