"""Clips and runs for the tests of the engine."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.timed_clips import greys, timed_clip
from hy_core.request import Sound
from hy_data import recipe as recipes
from hy_data.engine.ledger import Ledger
from hy_data.engine.run import SCORES, Report, run
from hy_data.recipe import Recipe
from hy_data.table import read_scores

PLUGIN = Path(__file__).with_name("fault_stages.py")
STAGES = ("extent", "bright", "trouble", "after", "last")


def good_clip(path: Path, shade: int = 100, count: int = 12) -> Path:
    """A clip of a second whose content depends on `shade`."""
    values = [(shade + 3 * at) % 256 for at in range(count)]
    return timed_clip(path, greys(values), [at / 12 for at in range(count)])


def corrupt_clips(folder: Path) -> list[Path]:
    """Five files that no stage can use, each in another way."""
    import numpy as np

    empty, noise, cut, header, sound = (
        folder / f"bad-{name}.mp4" for name in "empty noise cut header sound".split()
    )
    empty.write_bytes(b"")
    noise.write_bytes(bytes(range(256)) * 40)
    whole = good_clip(folder / "whole.mp4").read_bytes()
    (folder / "whole.mp4").unlink()
    cut.write_bytes(whole[: len(whole) // 3])
    header.write_bytes(whole[:32] + b"\0" * (len(whole) - 32))
    wave = np.sin(np.arange(16000) / 20, dtype=np.float32)[None]
    sound.write_bytes(sound_only(folder / "sound.m4a", Sound(wave, 16000)))
    return [empty, noise, cut, header, sound]


def sound_only(path: Path, sound: Sound) -> bytes:
    """The bytes of a file of sound alone."""
    import av

    with av.open(f"file:{path}", "w", format="mp4") as out:
        voice = out.add_stream("aac", rate=sound.rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(sound.samples, format="fltp", layout="mono")
        frame.sample_rate = sound.rate
        out.mux(voice.encode(frame))
        out.mux(voice.encode(None))
    data = path.read_bytes()
    path.unlink()
    return data


def recipe_of(stages: Sequence[str] = STAGES, **more: Any) -> Recipe:
    """A recipe of test stages with short deadlines."""
    engine = {"min_deadline": 4.0, "deadline_factor": 1.0, **more.pop("engine", {})}
    return recipes.parse({"stages": list(stages), "plugins": [str(PLUGIN)], "engine": engine, **more})


def score(folder: Path, out: Path, recipe: Recipe | None = None, **more: Any) -> Report:
    """Run a recipe."""
    return run(folder, out, recipe or recipe_of(), **more)


def digest(out: Path) -> str:
    """The hash of the table of scores."""
    return hashlib.sha256((out / SCORES).read_bytes()).hexdigest()


def table(out: Path) -> dict[str, dict[str, Any]]:
    """The rows of the table of scores, by file name (the last of a file)."""
    return {Path(row["path"]).name: row for row in read_scores(out / SCORES).to_pylist()}


def account(out: Path) -> list[tuple[Any, ...]]:
    """All rows of the ledger without times."""
    with Ledger(out, read_only=True) as ledger:
        return list(ledger.rows())
