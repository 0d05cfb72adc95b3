"""The data source that docs/how-to/data.md shows works as it is printed, within thirty lines."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner
from compose.test_doc_commands import blocks
from compose.test_docs import ROOT
from hy_core import media
from hy_core.cli import cli
from hy_core.data import SourceSpec, open_source
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
    spec = SourceSpec("folder", frames=5, height=32, width=32, options={"folder": "clips"})
    source = open_source(spec, plugins)
    assert [clip.caption(np.random.default_rng(0)) for clip in source] == ["grey 0", "grey 1", "grey 2"]
    for number in range(3):
        clip = source[number]
        assert clip.video().shape == (5, 32, 32, 3) and clip.background().shape == (32, 32, 3)
        assert abs(int(clip.video().mean()) - 40 - 60 * number) <= 3
        assert source.shape(number) == (5, 32, 32) and clip.sound() is None
    (folder / "clips" / "1.mp4").write_bytes((folder / "clips" / "0.mp4").read_bytes())
    assert open_source(spec, plugins).fingerprint != source.fingerprint


def test_its_recipe_is_right(folder):
    run = CliRunner().invoke(cli, ["train", "recipe.toml", "--dry-run"], prog_name="hy")
    assert run.exit_code == 0, f"{run.output} {run.exception}"
