"""Frames of clips in several views: right to the frame, in the right sizes, decoded once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from core.timed_clips import greys, timed_clip
from hy_core.data import ClipRecord
from hy_core.errors import HyError
from hy_core.media import timeline
from hy_data import frames as module
from hy_data.frames import ClipFrames, FrameStage, View, scaled_window

SMALL, GRAY = View(16), View(16, gray=True)


def striped(count: int) -> np.ndarray:
    """Frames of 64x128 whose 8 stripes are the bits of their number."""
    bits = np.arange(count)[:, None] >> np.arange(8) & 1
    return np.broadcast_to((bits * 200 + 20).repeat(16, 1)[:, None, :, None], (count, 64, 128, 3)).astype(
        np.uint8
    )


def numbered(path: Path, count: int = 100, fps: float = 25.0) -> Path:
    return timed_clip(path, striped(count), [i / fps for i in range(count)])


def numbers(frames: np.ndarray) -> list[int]:
    flat = frames.mean(-1) if frames.ndim == 4 else frames
    stripes = flat.mean(1).reshape(len(frames), 8, -1).mean(2) > 120
    return [int(stripe @ (1 << np.arange(8))) for stripe in stripes]


def test_a_span_in_the_middle_gives_its_own_frames(tmp_path: Path) -> None:
    path = numbered(tmp_path / "a.mp4")
    for first, last in ((0, 5), (1, 4), (60, 75), (77, 78), (90, 100)):
        frames = ClipFrames(ClipRecord(path, (first / 25, last / 25)), [SMALL])
        assert numbers(frames[SMALL]) == list(range(first, last))
        assert np.allclose(frames.times(SMALL), np.arange(last - first) / 25, atol=1e-3)


def test_all_views_come_from_one_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, calls = numbered(tmp_path / "a.mp4", 50), []
    pictures = timeline.pictures
    monkeypatch.setattr(timeline, "pictures", lambda *a, **k: calls.append(a) or pictures(*a, **k))  # type: ignore[func-returns-value]
    some, few, one = View(16, fps=5), View(8, count=4), View(8, count=1, gray=True)
    frames = ClipFrames(ClipRecord(path), [GRAY, some, few, one, GRAY])
    assert not calls, "nothing is decoded before it is wanted"
    assert numbers(frames[some]) == list(range(0, 50, 5))
    assert numbers(frames[few]) == [0, 16, 32, 49]
    assert numbers(frames[one]) in ([24], [25])
    assert numbers(frames[GRAY]) == list(range(50))
    assert (
        frames.size == (64, 128) and frames.fps == pytest.approx(25) and frames.duration == pytest.approx(2)
    )
    assert len(calls) == 1
    with pytest.raises(KeyError):
        frames[View(99)]


def test_shapes_are_even_contiguous_and_never_enlarged(tmp_path: Path) -> None:
    path = timed_clip(tmp_path / "a.mp4", greys([99] * 3, 90, 160), [0, 0.04, 0.08])
    views = [View(45), View(45, gray=True), View(900), View(1)]
    frames = ClipFrames(ClipRecord(path), views)
    assert [frames[view].shape for view in views] == [
        (3, 44, 80, 3),
        (3, 44, 80),
        (3, 90, 160, 3),
        (3, 2, 2, 3),
    ]
    assert all(frames[view].flags["C_CONTIGUOUS"] and frames[view].dtype == np.uint8 for view in views)
    assert abs(float(frames[views[1]].mean()) - 99) < 2, "grey is in full range"


def test_a_turned_clip_is_upright(tmp_path: Path) -> None:
    image = greys([0] * 3, 64, 96)
    image[:, :, :48] = 250  # the left half is white
    path = timed_clip(tmp_path / "a.mp4", image, [0, 0.04, 0.08], turn=90)
    frames = ClipFrames(ClipRecord(path), [SMALL, GRAY])
    expected = next(iter(timeline.frames(path)))[1]
    assert frames.size == (96, 64) == expected.shape[:2]
    assert frames[SMALL].shape == (3, 16, 10, 3)
    white_on_top = expected[:40].mean() > 200
    for view in (SMALL, GRAY):
        assert (frames[view][0, :6].mean() > 200) == white_on_top
        assert (frames[view][0, -6:].mean() > 200) != white_on_top


@pytest.mark.parametrize("height", [500, 30, 17])
def test_a_crop_holds_nothing_of_its_surroundings(tmp_path: Path, height: int) -> None:
    image = greys([0] * 2, 120, 160)
    image[:, 21:99, 33:127] = 200
    path = timed_clip(tmp_path / "a.mp4", image, [0, 0.04])
    view, gray = View(height), View(height, gray=True)
    frames = ClipFrames(ClipRecord(path, crop=(33, 21, 127, 99)), [view, gray])
    assert frames.size == (78, 94)
    assert frames[gray].shape[1:] == frames[view].shape[1:3]
    assert frames[view].shape[2] / frames[view].shape[1] == pytest.approx(94 / 78, rel=0.1)
    assert frames[gray][:, 1:-1, 1:-1].min() > 150 and frames[gray][:, [0, -1]].mean() > 150
    with pytest.raises(HyError, match="too small for the crop"):
        ClipFrames(ClipRecord(path, crop=(0, 0, 161, 100)), [view])[view]


@pytest.mark.parametrize("full", [(1080, 1920), (99, 33), (2, 5), (1, 1)])
def test_windows_lie_within_the_crop(full: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        top, left = (int(rng.integers(0, length)) for length in full)
        bottom, right = int(rng.integers(top + 1, full[0] + 1)), int(rng.integers(left + 1, full[1] + 1))
        scaled, corner, window = scaled_window(full, (left, top, right, bottom), int(rng.integers(1, 400)))
        for at, length, size, all_, low, high in zip(
            corner, window, scaled or full, full, (top, left), (bottom, right), strict=True
        ):
            assert 0 <= at and 0 < length and at + length <= size <= all_
            if high - low > 2:
                assert low - 1e-9 <= at * all_ / size and (at + length) * all_ / size <= high + 1e-9


def test_a_varying_rate_keeps_its_times(tmp_path: Path) -> None:
    times = [0, 0.1, 0.15, 0.2, 1.2, 1.3, 1.35, 1.4]
    path = timed_clip(tmp_path / "a.mkv", striped(8), times)
    even = View(16, fps=5)
    frames = ClipFrames(ClipRecord(path), [SMALL, even])
    assert numbers(frames[SMALL]) == list(range(8))
    assert np.allclose(frames.times(SMALL), times, atol=2e-3)
    assert numbers(frames[even])[:7] == [0, 3, 3, 3, 3, 3, 4], "a held frame comes again"
    assert (np.diff(frames.times(even)) > 0).all()
    later = ClipFrames(ClipRecord(path, (0.2, 1.35)), [SMALL])
    assert numbers(later[SMALL]) == [3, 4, 5]
    assert np.allclose(later.times(SMALL), [0, 1, 1.1], atol=2e-3)


def test_few_frames_and_faster_views_repeat_nothing(tmp_path: Path) -> None:
    path = numbered(tmp_path / "a.mp4", 6, 10)
    views = [View(16, count=20), View(16, fps=60), View(16, fps=10.01)]
    frames = ClipFrames(ClipRecord(path), views)
    assert [numbers(frames[view]) for view in views] == [list(range(6))] * 3
    single = ClipFrames(ClipRecord(path, (0.3, 0.4)), views)
    assert [numbers(single[view]) for view in views] == [[3]] * 3


def test_wrong_clips_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = numbered(tmp_path / "a.mp4", 10)
    with pytest.raises(HyError, match="no frames from 7 to 8 s"):
        ClipFrames(ClipRecord(path, (7.0, 8.0)), [SMALL])[SMALL]
    with pytest.raises(HyError, match="no such file|cannot be"):
        ClipFrames(ClipRecord(tmp_path / "none.mp4"), [SMALL])[SMALL]
    monkeypatch.setattr(module, "MAX_BYTES", 1000)
    with pytest.raises(HyError, match="cut it into shorter clips|are over"):
        ClipFrames(ClipRecord(path), [SMALL])[SMALL]


def test_a_frame_stage_measures_what_it_asks_for(tmp_path: Path) -> None:
    class Brightness(FrameStage):
        name = "brightness"

        def views(self) -> tuple[View, ...]:
            return (View(16, count=2, gray=True),)

        def measure(self, record: ClipRecord, frames: ClipFrames):  # type: ignore[no-untyped-def]
            return {"brightness": float(frames[self.views()[0]].mean())}, None

    record = ClipRecord(timed_clip(tmp_path / "a.mp4", greys([20, 200, 40]), [0, 0.1, 0.2]))
    (after,) = Brightness().run(record)
    assert after.results["brightness"] == pytest.approx(30, abs=1.5)
    frames = ClipFrames(record, Brightness().views())
    assert frames.is_of(after) and not frames.is_of(record.with_results({"span": [0.0, 0.5]}))
