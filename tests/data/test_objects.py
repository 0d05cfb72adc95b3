"""Objects by a YOLOX detector from an ONNX file: letterbox, grids, suppression, scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from core.timed_clips import timed_clip
from data.onnx_graphs import save, yolox
from hy_core.data import ClipRecord
from hy_core.errors import MissingError, UsageError
from hy_data.stages.objects import Objects
from hy_data.yolox import COCO, Yolox

pytest.importorskip("onnxruntime")
WHITE, BLUE = (255, 255, 255), (0, 0, 255)


def picture(*squares: tuple[int, int, tuple[int, int, int]]) -> np.ndarray:
    """A grey picture of 128x96 with squares of 16x16 at (left, top): half the detector's 64 pixels, so 8x8 there."""
    image = np.full((96, 128, 3), 60, np.uint8)
    for left, top, colour in squares:
        image[top : top + 16, left : left + 16] = colour
    return image


def test_boxes_are_where_the_objects_are(tmp_path: Path) -> None:
    found = Yolox(yolox(tmp_path / "m.onnx")).find(picture((32, 16, WHITE), (96, 64, BLUE)), 0.6)
    assert found.classes.tolist() == [0, 1] and np.allclose(found.scores, 1, atol=0.01)
    # 16x16 of the detector around the middle of a place are 32x32 of the picture.
    assert np.allclose(found.boxes, [[24, 8, 56, 40], [88, 56, 120, 88]], atol=0.5)


def test_neighbours_of_one_class_are_suppressed_and_of_two_are_not(tmp_path: Path) -> None:
    detector = Yolox(yolox(tmp_path / "m.onnx"))
    both = picture((32, 16, WHITE), (48, 16, WHITE))
    assert len(detector.find(both, 0.6, overlap=0.3).boxes) == 1, (
        "half of 32x32 overlaps: a third of the union"
    )
    assert len(detector.find(both, 0.6, overlap=0.4).boxes) == 2
    assert len(detector.find(picture((32, 16, WHITE), (48, 16, BLUE)), 0.6, overlap=0.3).boxes) == 2
    assert len(detector.find(picture(), 0.6).boxes) == 0


def test_a_clip_has_its_people_and_what_covers_it(tmp_path: Path) -> None:
    frames = [picture((32, 16, WHITE)), picture((32, 16, WHITE), (96, 64, BLUE), (64, 64, WHITE))]
    clip = timed_clip(
        tmp_path / "a.mp4", np.repeat(np.stack(frames), 4, 0), [index / 30 for index in range(8)]
    )
    stage = Objects(weights=yolox(tmp_path / "m.onnx"), occluding=["bicycle"], frames=2, height=96, score=0.6)
    (record,) = stage.run(ClipRecord(clip))
    assert record.results["people"] == 2 and record.results["objects"] == {"bicycle": 1, "person": 2}
    assert record.results["person_area"] == pytest.approx(32 * 32 / (96 * 128), rel=0.05)
    assert record.results["occluded_area"] == pytest.approx(32 * 32 / (96 * 128), rel=0.1)


def test_a_detector_of_ones_own_has_its_own_names(tmp_path: Path) -> None:
    path = yolox(tmp_path / "m.onnx", classes=2)
    assert Yolox(path, ("watermark", "logo")).find(picture((96, 64, BLUE)), 0.6).classes.tolist() == [1]
    with pytest.raises(UsageError, match="87|85"):
        Yolox(path, COCO)
    with pytest.raises(UsageError, match="'stamp' is no class"):
        Objects(weights=path, names=["watermark", "logo"], occluding=["stamp"]).setup()


def test_files_that_are_no_detector_are_told(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"objects: no model at .*none\.onnx"):
        Objects(weights=tmp_path / "none.onnx").setup()
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(UsageError, match=r"text\.onnx is not a model"):
        Objects(weights=tmp_path / "text.onnx").setup()
    two = {"a": [1, 3, 64, 64], "b": [1, 3, 64, 64]}
    save(tmp_path / "two.onnx", [("Add", ["a", "b"], ["c"], {})], two, {"c": [1, 3, 64, 64]}, {})
    with pytest.raises(UsageError, match="inputs a, b"):
        Objects(weights=tmp_path / "two.onnx").setup()
    assert len(COCO) == 80 and COCO[0] == "person" and COCO[79] == "toothbrush"
