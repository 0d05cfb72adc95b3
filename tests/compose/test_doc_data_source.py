"""The data source that docs/how-to/data.md shows works as it is printed, within thirty lines."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner
from compose.test_doc_commands import blocks
from compose.test_docs import ROOT
from hy_core import media
from hy_core.cli import cli
from hy_core.plugins import Plugins

PAGE = ROOT / "docs" / "how-to" / "data.md"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the page's plugin, its recipe, and three clips of half a second at 16 frames a second."""
    monkeypatch.chdir(tmp_path)
    (code,) = (code for _, code in blocks(PAGE, "python") if "register_datasets" in code)
    (recipe,) = (code for _, code in blocks(PAGE, "toml") if "./folder.py" in code)
    assert len([line for line in code.splitlines() if line.strip()]) <= 30
    (tmp_path / "folder.py").write_text(code, encoding="utf-8")
    (tmp_path / "recipe.toml").write_text(recipe, encoding="utf-8")
    (tmp_path / "clips").mkdir()
    for number in range(3):
        frames = np.full((16, 48, 64, 3), 40 + 60 * number, np.uint8)
        media.write(tmp_path / "clips" / f"{number}.mp4", frames, 16)
        (tmp_path / "clips" / f"{number}.txt").write_text(f"grey {number}\n", encoding="utf-8")
    return tmp_path


def test_the_source_gives_clips(folder):
    plugins = Plugins([])
    plugins.load("./folder.py")
    source = plugins.datasets().pick("folder")(folder="clips")
    drawn = [source.clip(np.random.default_rng(seed), "train", 5, 32, 32) for seed in range(24)]
    assert {clip.caption(np.random.default_rng(0)) for clip in drawn} == {"grey 0", "grey 1", "grey 2"}
    for clip in drawn:
        level = 40 + 60 * int(clip.caption(None).split()[1])
        assert clip.pixels().shape == (5, 32, 32, 3) and clip.ground().shape == (32, 32, 3)
        assert abs(int(clip.pixels().mean()) - level) <= 3
    again = source.clip(np.random.default_rng(3), "train", 5, 32, 32)
    assert again.path == drawn[3].path


def test_its_recipe_is_right(folder):
    run = CliRunner().invoke(cli, ["train", "recipe.toml", "--dry-run"], prog_name="hy")
    assert run.exit_code == 0, f"{run.output} {run.exception}"
