"""hy-data's sources of hy-train: a folder of clips with captions, and a set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hy_core import media, models
from hy_core.data import ClipShape, DataSource, SourceSpec, open_source
from hy_core.errors import UsageError
from hy_core.plugins import Plugins


def clip(path: Path, level: int, frames: int = 24, size: tuple[int, int] = (48, 64)) -> Path:
    """A clip of one grey that gets brighter by two levels a frame."""
    grey = (level + 2 * np.arange(frames)).astype(np.uint8)[:, None, None, None]
    return media.write(path, np.broadcast_to(grey, (frames, *size, 3)), 8.0)


def source(name: str = "folder", count: int = 0, frames: int = 9, **options) -> DataSource:
    plugins = Plugins()
    plugins.load("data")
    spec = SourceSpec(name, "train", 0, count, frames, 32, 32, options=options)
    return open_source(spec, plugins)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(3):
        clip(tmp_path / "clips" / f"{number}.mp4", 20 + 60 * number)
        (tmp_path / "clips" / f"{number}.txt").write_text(f"grey {number}", encoding="utf-8")
    clip(tmp_path / "clips" / "short.mp4", 10, 3)
    (tmp_path / "clips" / "broken.mp4").write_bytes(b"no clip")
    return tmp_path / "clips"


def test_a_folder_gives_each_clip_that_is_long_enough(folder: Path) -> None:
    found = source(path=str(folder))
    clips = sorted((one.caption(np.random.default_rng(0)), one.video()) for one in found)
    assert [words for words, _ in clips] == ["grey 0", "grey 1", "grey 2"]
    for number, (_, video) in enumerate(clips):
        assert video.shape == (9, 32, 32, 3) == (*found.shape(number), 3)
        assert np.abs(video.mean((1, 2, 3)) - (20 + 60 * number + 2 * np.arange(9))).max() < 4


def test_a_number_of_clips_is_of_windows(folder: Path) -> None:
    found = source(count=20, path=str(folder))
    assert len(found) == 20
    starts = {one.span[0] for one in found}
    assert len(starts) > 5 and max(starts) <= 15 / 8
    again = source(count=20, path=str(folder))
    assert [one.span for one in found] == [
        one.span for one in again
    ] and found.fingerprint == again.fingerprint
    one = max(found, key=lambda clip: clip.span[0])
    first = round(one.span[0] * 8)
    level = 20 + 60 * int(one.caption(np.random.default_rng(0)).split()[1])
    assert np.abs(one.video().mean((1, 2, 3)) - (level + 2 * (first + np.arange(9)))).max() < 4


def test_a_clip_goes_to_one_bucket_and_what_none_takes_is_counted(folder: Path) -> None:
    """Peers' users met buckets that were dropped without a word."""
    clip(folder / "upright.mp4", 40, 24, (64, 48))
    media.write(folder / "still.png", np.full((1, 40, 60, 3), 90, np.uint8), 8.0)
    shapes = (ClipShape(9, 32, 48), ClipShape(9, 48, 32), ClipShape(17, 32, 48), ClipShape(1, 32, 32))
    plugins = Plugins()
    plugins.load("data")
    found = {}
    for shape in shapes:
        spec = SourceSpec("folder", "train", 0, 0, *shape, options={"path": str(folder)}, shapes=shapes)
        try:
            found[shape] = open_source(spec, plugins)
        except UsageError as error:
            found[shape] = error
    names = {
        shape: sorted(Path(one.id).name for one in source)
        for shape, source in found.items()
        if not isinstance(source, UsageError)
    }
    assert names == {
        shapes[1]: ["upright.mp4"],  # the nearest aspect ratio of those that last nine frames
        shapes[2]: ["0.mp4", "1.mp4", "2.mp4"],  # the longest that they fill
        shapes[3]: ["short.mp4", "still.png"],
    }
    assert found[shapes[2]].left_out == {"can't be read": 1}
    assert source(path=str(folder)).left_out == {
        "can't be read": 1,
        "shorter than 9 frames at 8 a second": 1,
        "shorter than 9 frames at 1 a second": 1,
    }
    assert isinstance(found[shapes[0]], UsageError) and "none of 7 clips belongs into 9x32x48" in str(
        found[shapes[0]]
    )


def test_a_clip_keeps_its_name_when_others_change(folder: Path) -> None:
    first = source(path=str(folder))
    names = {first[index].id: first.key(index) for index in range(len(first))}
    clip(folder / "00.mp4", 90)
    second = source(path=str(folder))
    again = {second[index].id: second.key(index) for index in range(len(second))}
    assert len(again) == 4 and names.items() <= again.items() and first.fingerprint != second.fingerprint


def test_pictures_are_clips_of_one_frame(folder: Path) -> None:
    media.write(folder / "still.png", np.full((1, 40, 40, 3), 90, np.uint8), 8.0)
    found = source(frames=1, path=str(folder))
    assert len(found) == 5
    assert any(one.video().shape == (1, 32, 32, 3) and abs(one.video().mean() - 90) < 2 for one in found)


def test_what_does_not_fit_is_one_line(folder: Path) -> None:
    with pytest.raises(UsageError, match="no path is given"):
        source()
    with pytest.raises(UsageError, match="none of 5 clips has 33 frames"):
        source(frames=33, path=str(folder))
    with pytest.raises(UsageError, match="no set is given"):
        source("set")
    with pytest.raises(UsageError, match="unknown key"):
        source(folder=str(folder))


@pytest.mark.skipif(not models.find("pocket").dit.exists(), reason="needs pocket's weights")
def test_hy_train_runs_on_a_folder(folder: Path, hy, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'objective = "flow"\ninit_from = "pocket"\nsteps = 2\nbatch = 2\neval_every = 0\nplugins = ["data"]\n'
        '[data]\nsource = "folder"\nbuckets = [{frames = 9, height = 32, width = 32, clips = 0}]\n'
        f"[data.sources.folder]\npath = {json.dumps(str(folder))}\n",
        encoding="utf-8",
    )
    done = hy("train", str(recipe), "-q", "--json", "--out", str(tmp_path / "run"))
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["step"] == 2


@pytest.mark.slow
@pytest.mark.skipif(not models.find("pocket").dit.exists(), reason="needs pocket's weights")
def test_from_raw_videos_to_a_trained_model(tmp_path: Path, hy) -> None:
    """Raw videos, a set, twenty steps, and a clip of what came of them."""
    rng = np.random.default_rng(0)
    (tmp_path / "raw").mkdir()
    for number in range(4):
        scene = rng.integers(0, 255, (2, 9, 12, 3), np.uint8)
        frames = [
            np.roll(scene[index // 24].repeat(16, 0).repeat(16, 1), 2 * index, 1) for index in range(48)
        ]
        media.write(tmp_path / "raw" / f"{number}.mp4", np.stack(frames), 8.0)
    recipe = tmp_path / "data.toml"
    recipe.write_text(
        'stages = ["probe", "shots", "motion", "caption"]\n[sets.all]\nheight = 64\nwidth = 64\nframes = 9\n',
        encoding="utf-8",
    )
    made = hy("data", "run", str(tmp_path / "raw"), "-o", str(tmp_path / "sets"), "--recipe", str(recipe))
    assert made.exit_code == 0, made.stderr
    training = tmp_path / "train.toml"
    training.write_text(
        'objective = "flow"\ninit_from = "pocket"\nsteps = 20\nbatch = 2\neval_every = 0\nplugins = ["data"]\n'
        '[data]\nsource = "set"\nbuckets = [{frames = 9, height = 64, width = 64, clips = 0}]\n'
        f'[data.sources.set]\nfolder = {json.dumps(str(tmp_path / "sets"))}\nname = "all"\n',
        encoding="utf-8",
    )
    done = hy("train", str(training), "-q", "--json", "--out", str(tmp_path / "run"))
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["step"] == 20
    out = tmp_path / "a.mp4"
    clip_made = hy("generate", "x", "--model", str(tmp_path / "run/export"), "--steps", "1", "-o", str(out))
    assert clip_made.exit_code == 0 and media.probe(out).frames == 17
