"""`hy data run`, `stats`, `show` and `explain` as a user calls them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from data.engine_runs import PLUGIN, good_clip
from PIL import Image

RECIPE = f"""stages = ["extent", "bright", "trouble"]
finish = ["last"]
plugins = ["{PLUGIN}"]
[sets.small]
height = 16
width = 16
frames = 5
limits = {{ brightness = {{ min = 110 }} }}
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    from hy_core.cli import run
    from hy_core.plugins import installed

    folder = tmp_path_factory.mktemp("cli")
    (folder / "in").mkdir()
    good_clip(folder / "in" / "dark.mp4", 40)
    good_clip(folder / "in" / "light.mp4", 150)
    good_clip(folder / "in" / "mistake.mp4", 120)
    (folder / "in" / "note.txt").write_text("x")
    (folder / "mine.toml").write_text(RECIPE)
    installed.cache_clear()
    arguments = [
        "data",
        "run",
        str(folder / "in"),
        "-o",
        str(folder / "out"),
        "--recipe",
        str(folder / "mine.toml"),
    ]
    import io
    from contextlib import redirect_stderr, redirect_stdout

    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        assert run([*arguments, "--json", "--progress", "json"]) == 0
    return folder / "out", out.getvalue()


def test_run_reports_clips_and_sets(ran: tuple[Path, str]) -> None:
    out, printed = ran
    report = json.loads(printed)
    assert report["clips"] == {"ok": 2, "filtered": 0, "failed": 1} and report["rows"] == 3
    assert {path.name for path in out.iterdir()} >= {
        "recipe.toml",
        "ledger.sqlite",
        "scores.parquet",
        "manifest.parquet",
        "sets",
    }


def test_finishing_stages_run_on_kept_clips_only(ran: tuple[Path, str]) -> None:
    from hy_data.table import read_scores

    rows = {Path(row["path"]).stem: row for row in read_scores(ran[0] / "manifest.parquet").to_pylist()}
    assert rows["light"]["seen"] and rows["dark"]["seen"] is None and rows["dark"]["status"] == "ok"


def test_explain_says_which_threshold(hy: Callable[..., Any], ran: tuple[Path, str]) -> None:
    said = hy("data", "explain", ran[0], "dark.mp4").stdout
    assert "small: brightness" in said and "is below 110" in said
    assert "kept" in hy("data", "explain", ran[0], "light.mp4", "--set", "small").stdout
    failed = json.loads(hy("data", "explain", ran[0], "mistake.mp4", "--json").stdout)
    assert (failed["status"], failed["stage"]) == ("failed", "trouble")
    assert "this clip is not wanted here" in hy("data", "explain", ran[0], "mistake.mp4").stdout
    wrong = hy("data", "explain", ran[0], "dark.mp4", "--set", "large")
    assert wrong.exit_code == 2 and "no set 'large'" in wrong.stderr


def test_show_prints_scores_and_writes_a_sheet(
    hy: Callable[..., Any], ran: tuple[Path, str], tmp_path: Path
) -> None:
    row = json.loads(hy("data", "show", ran[0], "light.mp4", "--json").stdout)
    short = hy("data", "show", ran[0], row["id"][:6], "-o", tmp_path / "sheet.png", "--frames", 4)
    assert short.exit_code == 0 and "brightness" in short.stdout
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width >= 48 and sheet.getpixel((2, 2))[0] > 100
    assert hy("data", "show", ran[0], "zzz").exit_code == 3
    assert hy("data", "show", ran[0], "").exit_code == 2


def test_stats_count_and_time_the_stages(hy: Callable[..., Any], ran: tuple[Path, str]) -> None:
    facts = json.loads(hy("data", "stats", ran[0], "--json").stdout)
    stages = {one["stage"]: one for one in facts["stages"]}
    assert stages["trouble"]["failed"] == 1 and stages["bright"]["ok"] == 3 and stages["last"]["ok"] == 1
    assert facts["limiting"] in stages and stages["decode"]["seconds_per_clip"] > 0
    assert "x real time" in hy("data", "stats", ran[0]).stdout


def test_dry_run_and_wrong_calls_run_nothing(
    hy: Callable[..., Any], ran: tuple[Path, str], tmp_path: Path
) -> None:
    source = ran[0].parent / "in"
    said = hy(
        "data", "run", source, "-o", tmp_path / "o", "--recipe", ran[0].parent / "mine.toml", "--dry-run"
    )
    assert "3 inputs" in said.stdout and "brightness" in said.stdout and "ignored: 1 .txt" in said.stdout
    for arguments, message in (
        (["--recipe", "none"], "no data recipe 'none'"),
        (["--set", "stage.txet.x=1"], "[stage.txet] is for a stage that doesn't run"),
        (["--set", "sets.small.hieght=1"], "unknown key 'hieght'"),
        (["--set", "engine.wrokers=1"], "unknown key 'wrokers'"),
    ):
        wrong = hy(
            "data", "run", source, "-o", tmp_path / "o", "--recipe", ran[0].parent / "mine.toml", *arguments
        )
        assert wrong.exit_code in (2, 3) and message in wrong.stderr and wrong.stderr.count("\n") <= 2
    assert not (tmp_path / "o").exists()
