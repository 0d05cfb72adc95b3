"""`hy data decide`, `report`, `import` and `export`, as commands."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from data import synthetic
from hy_core.errors import HyError, MissingError, UsageError
from hy_core.media import write
from hy_data import recipe as recipes
from hy_data.cli import command
from hy_data.table import read_scores, write_scores

SETS = """
stages = []
[sets.a]
height = 64
width = 64
keep = 0.5
scores = ["blur"]
[sets.b]
height = 64
width = 64
from = "a"
limits = {people = {max = 3}}
"""


def run(*arguments):
    return CliRunner().invoke(
        command, [str(one) for one in arguments], catch_exceptions=False, standalone_mode=False
    )


@pytest.fixture
def folder(tmp_path):
    synthetic.write(tmp_path, 200)
    (tmp_path / "recipe.toml").write_text(SETS)
    return tmp_path


def test_a_changed_value_is_decided_recorded_and_used_again(folder):
    first = json.loads(run("decide", folder, "--json").stdout)["sets"]
    changed = json.loads(run("decide", folder, "--set", "sets.a.keep=0.25", "--json").stdout)["sets"]
    assert changed[0]["kept"] == pytest.approx(first[0]["kept"] / 2, abs=1)
    assert recipes.load(folder / "recipe.toml").sets["a"]["keep"] == 0.25
    again = json.loads(run("decide", folder, "--json").stdout)["sets"]
    assert again == changed
    assert len(read_scores(folder / "sets" / "a.parquet")) == changed[0]["kept"]


def test_the_sets_of_another_recipe_are_used_with_the_stages_of_the_folder(folder):
    (folder / "recipe.toml").write_text(SETS.replace("stages = []", 'stages = ["faces"]'))
    (folder / "other.toml").write_text('stages = ["text"]\n[sets.c]\nheight = 8\nwidth = 8\n')
    run("decide", folder, "--recipe", folder / "other.toml")
    loaded = recipes.load(folder / "recipe.toml")
    assert loaded.stages == ("faces",) and list(loaded.sets) == ["c"]


def test_a_wrong_value_changes_nothing(folder):
    run("decide", folder)
    before = (folder / "recipe.toml").read_text(), (folder / "manifest.parquet").read_bytes()
    with pytest.raises(UsageError, match="keep = 2"):
        run("decide", folder, "--set", "sets.a.keep=2.0")
    assert before == ((folder / "recipe.toml").read_text(), (folder / "manifest.parquet").read_bytes())


def test_the_report_prints_the_funnel_and_writes_the_page(folder):
    with pytest.raises(MissingError, match="no such table"):
        run("report", folder)
    run("decide", folder)
    result = run("report", folder, "--pictures", "0")
    assert "a: " in result.stdout and "blur >=" in result.stdout and "failed in probe" in result.stdout
    assert (folder / "report.html").is_file()
    (folder / "report.html").unlink()
    stated = json.loads(run("report", folder, "--no-page", "--json").stdout)
    assert stated["sets"][1]["from"] == "a" and not (folder / "report.html").exists()


def test_a_folder_without_a_recipe_is_named(tmp_path):
    synthetic.write(tmp_path, 5)
    with pytest.raises(MissingError, match=r"has no recipe.toml"):
        run("decide", tmp_path)


def test_import_and_export(tmp_path):
    frames = np.zeros((10, 32, 32, 3), np.uint8)
    write(tmp_path / "d" / "a.mp4", frames, 10.0)
    (tmp_path / "d" / "a.txt").write_text("dark")
    result = run("import", tmp_path / "d", "-o", tmp_path / "clips.jsonl")
    assert "1 clips, read as a folder" in result.stdout
    assert json.loads((tmp_path / "clips.jsonl").read_text())["captions"] == ["dark"]
    base = {"start": 0.0, "stop": 1.0, "width": 32, "height": 32, "frames": 10, "status": "ok"}
    rows = [
        {"id": "a", "path": tmp_path / "d/a.mp4", **base},
        {"id": "b", "path": tmp_path / "gone.mp4", **base},
    ]
    write_scores(rows, tmp_path / "scores.parquet")
    (tmp_path / "recipe.toml").write_text("stages = []\n[sets.s]\nheight = 8\nwidth = 8\n")
    run("decide", tmp_path)
    with pytest.raises(HyError, match="1 clips could not be cut"):
        run("export", tmp_path, "--set", "s", "-o", tmp_path / "shards")
    assert (tmp_path / "shards" / "s-000000.tar").is_file()
