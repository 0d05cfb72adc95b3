"""Text in clips: found, measured, and subtitles cropped away."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from core.timed_clips import timed_clip
from hy_core.data import ClipRecord
from hy_core.errors import MissingError
from hy_data.frames import ClipFrames
from hy_data.ocr import TextBoxes
from hy_data.stages import text as module
from hy_data.stages.text import Text, lasting, likely, scaled_crop, subtitle_lines
from PIL import Image, ImageDraw, ImageFont

HEIGHT, WIDTH = 180, 320


@pytest.fixture(scope="module")
def stage() -> Text:
    pytest.importorskip("rapidocr")
    stage = Text(frames=2, height=180)
    stage.setup()
    return stage


def clip(path: Path, *texts: tuple[str, int, int]) -> Path:
    """Eight frames of a moving pattern under white texts at (left, top)."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    frames = []
    for index in range(8):
        wave = 90 + 50 * np.sin((rows + columns + 9 * index) / 25)
        image = Image.fromarray(np.stack([wave, wave * 0.9, wave * 0.6], -1).astype(np.uint8))
        for text, left, top in texts:
            ImageDraw.Draw(image).text(
                (left, top), text, "white", ImageFont.load_default(16), stroke_width=1, stroke_fill="black"
            )
        frames.append(np.asarray(image))
    return timed_clip(path, np.stack(frames), [index / 8 for index in range(8)])


def test_a_subtitle_is_cropped_away(tmp_path: Path, stage: Text) -> None:
    (record,) = stage.run(ClipRecord(clip(tmp_path / "a.mp4", ("Where are you going?", 80, 155))))
    assert record.results["subtitles"] == 2 and record.results["subtitles_left"] == 0, (
        "a line in each of two frames"
    )
    assert record.results["text_area"] == record.results["text_boxes"] == record.results["text_lasting"] == 0
    left, top, right, bottom = record.crop or (0, 0, 0, 0)
    assert (left, top, right) == (0, 0, WIDTH) and 0.8 * HEIGHT <= bottom <= 156
    (again,) = stage.run(record)
    assert again.crop == record.crop and again.results["subtitles"] == 0


def test_text_in_the_middle_is_measured_and_stays(tmp_path: Path, stage: Text) -> None:
    (record,) = stage.run(ClipRecord(clip(tmp_path / "a.mp4", ("OPEN DAY", 100, 80))))
    assert record.crop is None and record.results["subtitles"] == 0
    assert record.results["text_boxes"] == 1
    assert 0.01 < float(record.results["text_area"]) < 0.05  # type: ignore[arg-type]
    assert record.results["text_lasting"] == pytest.approx(record.results["text_area"], rel=0.1)


def test_a_clip_without_text_has_none(tmp_path: Path, stage: Text) -> None:
    (record,) = stage.run(ClipRecord(clip(tmp_path / "a.mp4")))
    assert record.results == {
        "subtitles": 0, "subtitles_left": 0, "text_area": 0, "text_boxes": 0, "text_lasting": 0
    }  # fmt: skip


def test_reading_once_does_not_change_later_detection(tmp_path: Path, stage: Text) -> None:
    path = clip(tmp_path / "a.mp4", ("OPEN DAY", 100, 80))
    picture = ClipFrames(ClipRecord(path), stage.views())[stage.views()[0]][0]
    reader = stage._reader
    before = reader.find(picture, 0.6)
    assert "".join(reader.find(picture, 0.6, read=True).texts).replace(" ", "") == "OPENDAY"
    after = reader.find(picture, 0.6)
    assert after.texts == () and np.array_equal(after.corners, before.corners)


def test_a_crop_that_would_keep_too_little_is_not_made(tmp_path: Path) -> None:
    pytest.importorskip("rapidocr")
    path = clip(tmp_path / "a.mp4", ("Where are you going?", 80, 150))
    (record,) = Text(frames=2, height=180, keep=0.9).run(ClipRecord(path))
    assert record.crop is None and record.results["subtitles_left"] == 2
    assert float(record.results["text_area"]) > 0  # type: ignore[arg-type]


def test_a_crop_is_told_in_pixels_of_the_full_picture(tmp_path: Path, stage: Text) -> None:
    path = clip(tmp_path / "a.mp4", ("Where are you going?", 80, 155))
    (record,) = stage.run(ClipRecord(path, crop=(40, 4, 300, 180)))
    left, top, right, bottom = record.crop or (0, 0, 0, 0)
    assert (left, top, right) == (40, 4, 300) and 148 <= bottom <= 156
    assert scaled_crop((0, 10, 33, 50), (60, 100), (720, 1200)) == (0, 120, 396, 600)
    assert scaled_crop((1, 1, 10, 10), (30, 30), (31, 31)) == (2, 2, 10, 10)


def line(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


def test_subtitles_are_level_lines_near_the_edge() -> None:
    empty = np.zeros((0, 4, 2))

    def subtitles(*frames: np.ndarray) -> int:
        return len(subtitle_lines([TextBoxes(one) for one in frames], (100, 200)))

    low = line(50, 85, 150, 95)
    assert subtitles(low[None], empty) == 1
    assert subtitles(low[None] - [0, 84], empty) == 1, "at the top"
    assert subtitles(low[None] - [0, 40], empty) == 0, "in the middle"
    short = line(20, 85, 30, 95)
    assert subtitles(short[None], empty) == 0, "a sign"
    assert subtitles(short[None] + [75, 0], empty) == 1, "centred"
    assert subtitles(short[None], short[None]) == 2, "the same place in two frames"
    tilted = low + [[0, 0], [0, 12], [0, 12], [0, 0]]
    assert subtitles(tilted[None] - [0, 4], empty) == 0


def test_frames_with_strokes_near_the_edge_are_examined() -> None:
    pictures = np.full((12, 80, 120, 3), 90, np.uint8)
    pictures[9, 65:75, 20:100:4] = 255  # a subtitle
    pictures[2, 40:50, 20:100:4] = 255  # text in the middle
    chosen = likely(pictures, 4)
    assert len(chosen) == 4 and {4, 7, 9} <= {*chosen} and 2 not in chosen
    assert likely(pictures[:3], 4) == [0, 1, 2]


def test_lasting_text_is_at_one_place_in_all_frames() -> None:
    here, there = line(10, 10, 50, 20), line(60, 60, 90, 70)
    both = np.stack([here, there])
    assert np.array_equal(lasting([both, here[None] + 1, both]), here[None])
    assert len(lasting([both, both - [0, 10]])) == 0
    assert len(lasting([both])) == 0, "one frame can't tell"


def test_without_rapidocr_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    with pytest.raises(MissingError, match="rapidocr") as caught:
        module.Text().setup()
    assert "hy-data[models]" in str(caught.value.hint)
