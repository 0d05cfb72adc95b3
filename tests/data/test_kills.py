"""A run that is killed anywhere resumes to the same table of scores and leaves no process."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from data.engine_runs import PLUGIN, corrupt_clips, digest, good_clip, score
from hy_data import recipe as recipes

if not Path("/proc/self/status").exists():
    pytest.skip("reads processes from /proc", allow_module_level=True)

RECIPE = f"""stages = ["extent", "halves", "bright", "trouble", "after", "last"]
plugins = ["{PLUGIN}"]
[stage.bright]
nap = 0.15
[engine]
workers = 2
min_deadline = 4.0
"""


def command(folder: Path, out: Path, recipe: Path) -> list[str]:
    arguments = ["data", "run", str(folder), "-o", str(out), "--recipe", str(recipe), "--progress", "off"]
    return [sys.executable, "-m", "hy_core", *arguments]


def processes(mark: str) -> list[int]:
    """The processes whose environment holds a mark."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if mark.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def wait_gone(mark: str, seconds: float) -> list[int]:
    end = time.monotonic() + seconds
    while (left := processes(mark)) and time.monotonic() < end:
        time.sleep(0.05)
    return left


def killed_run(arguments: list[str], mark: str, delay: float, number: int = signal.SIGKILL) -> int | None:
    """Start a run in a process group of its own and kill its driver; None if it had ended before."""
    process = subprocess.Popen(
        arguments,
        env={**os.environ, "HY_TEST_MARK": mark},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        process.wait(delay)
        return None
    except subprocess.TimeoutExpired:
        process.send_signal(number)
        return process.wait(20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kills")
    for number in range(4):
        good_clip(folder / f"good-{number}.mp4", 30 * number)
    for path in corrupt_clips(folder)[2:]:
        path.unlink()
    return folder


def undisturbed(folder: Path, tmp_path: Path) -> tuple[Path, str, float]:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)
    start = time.monotonic()
    score(folder, tmp_path / "whole", recipes.load(recipe))
    return recipe, digest(tmp_path / "whole"), time.monotonic() - start


def test_a_run_killed_twice_resumes_to_the_same_scores(folder: Path, tmp_path: Path) -> None:
    recipe, wanted, seconds = undisturbed(folder, tmp_path)
    out, mark = tmp_path / "out", f"mark-{os.getpid()}-two"
    for share in (0.5, 0.8):
        killed_run(command(folder, out, recipe), mark, 2 + share * seconds)
        assert not wait_gone(mark, 2)
    score(folder, out, recipes.load(recipe))
    assert digest(out) == wanted


def test_a_signal_ends_a_run_with_130_and_no_process_stays(folder: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.replace("nap = 0.15", "nap = 3"))
    mark = f"mark-{os.getpid()}-signal"
    code = killed_run(command(folder, tmp_path / "out", recipe), mark, 8, signal.SIGTERM)
    assert code == 130
    assert not wait_gone(mark, 2)
    assert not (tmp_path / "out" / "scores.parquet").exists()


@pytest.mark.slow
def test_twenty_random_kills_lose_and_double_nothing(folder: Path, tmp_path: Path) -> None:
    hang = good_clip(folder / "hang-0.mp4", 222)
    try:
        recipe, wanted, seconds = undisturbed(folder, tmp_path)
        rng, out = random.Random(0), tmp_path / "out"
        for number in range(20):
            mark = f"mark-{os.getpid()}-{number}"
            # Every second one within the first seconds: starting, resuming, and writing what is done already.
            latest = max(seconds / 2, 5) if number % 2 else 4
            killed_run(command(folder, out, recipe), mark, rng.uniform(0.3, latest))
            left = wait_gone(mark, 2)
            assert not left
        score(folder, out, recipes.load(recipe))
        assert digest(out) == wanted
    finally:
        hang.unlink()
