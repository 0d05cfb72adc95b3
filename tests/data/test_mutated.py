"""Damaged media files: each costs one row with a reason, none a worker."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from core.timed_clips import timed_clip
from data.engine_runs import score
from hy_data import recipe as recipes
from hy_data.engine.driver import DIED, HUNG
from hy_data.table import read_scores

STAGES = ["probe", "shots", "borders", "quality", "motion", "camera-motion"]


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Change bytes, cut, repeat or remove a part of a file."""
    out = bytearray(data)
    match rng.randrange(5):
        case 0:
            for _ in range(rng.randrange(1, 50)):
                out[rng.randrange(len(out))] = rng.randrange(256)
        case 1:
            del out[rng.randrange(len(out)) :]
        case 2:
            at = rng.randrange(len(out))
            out[at:at] = out[at : at + rng.randrange(1, 500)]
        case 3:
            at = rng.randrange(len(out))
            del out[at : at + rng.randrange(1, 500)]
        case _:
            at = rng.randrange(min(len(out), 1200))
            out[at : at + 4] = rng.choice([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"])
    return bytes(out) + rng.randbytes(8)  # no two files are the same


def drifting() -> np.ndarray:
    """Frames of one shot, uint8 [40, 96, 128, 3]: a smooth pattern that moves."""
    y, x = np.mgrid[:96, :168]
    wide = 127 + 60 * np.sin(x / 9.0) * np.cos(y / 7.0) + 40 * np.sin(x * y / 300.0)
    frames = [np.repeat(wide[:, at : at + 128, None], 3, 2) for at in range(40)]
    return np.stack(frames).clip(0, 255).astype(np.uint8)


def run_mutated(folder: Path, count: int) -> None:
    rng = random.Random(count)
    (folder / "in").mkdir()
    seeds = [
        timed_clip(
            folder / f"seed{turn}{end}", drifting(), [i / 25 for i in range(40)], turn=turn
        ).read_bytes()
        for turn, end in ((0, ".mp4"), (90, ".mp4"), (0, ".mkv"))
    ]
    for number in range(count):
        (folder / "in" / f"{number}.mp4").write_bytes(mutated(rng.choice(seeds), rng))
    recipe = recipes.parse(
        {"stages": STAGES, "stage": {"probe": {"least_height": 16}, "shots": {"shortest": 0.2}}}
    )
    score(folder / "in", folder / "out", recipe)
    rows = read_scores(folder / "out" / "scores.parquet").to_pylist()
    assert {Path(row["path"]).stem for row in rows} == {str(number) for number in range(count)}
    assert any(row["status"] == "ok" for row in rows) and any(row["status"] != "ok" for row in rows)
    for row in rows:
        assert (row["reason"] is None) == (row["status"] == "ok")
        assert row["reason"] not in (DIED, HUNG), row
        assert not str(row["reason"]).startswith("unexpected"), row


def test_twenty_damaged_files_have_reasons(tmp_path: Path) -> None:
    run_mutated(tmp_path, 20)


@pytest.mark.slow
def test_five_hundred_damaged_files_have_reasons(tmp_path: Path) -> None:
    run_mutated(tmp_path, 500)
