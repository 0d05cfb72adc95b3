"""Faces are found, followed through gaps and kept apart; MediaPipe finds the one on a real photograph."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hy_avatar import faces
from hy_core.errors import HyError, MissingError

mediapipe = pytest.mark.skipif(
    importlib.util.find_spec("mediapipe") is None, reason="MediaPipe is not installed"
)


@pytest.fixture(scope="module")
def photo():
    """The astronaut Eileen Collins (NASA, public domain), from scikit-image's wheel."""
    from PIL import Image

    found = importlib.util.find_spec("skimage")
    if found is None:
        pytest.skip("scikit-image, which carries the photograph, is not installed")
    return np.asarray(Image.open(Path(found.origin).parent / "data" / "astronaut.png").convert("RGB"))


def test_two_faces_that_move_keep_their_tracks():
    left = np.array([0.1, 0.3, 0.3, 0.6])
    frames = []
    for k in range(10):
        one, two = left + [0.01 * k, 0, 0.01 * k, 0], left + [0.5, 0, 0.5, 0]
        found = [two, one] if k % 2 else [one, two]
        frames.append(np.array(found if k != 4 else [two]))  # a blink of the detector
    tracks = faces.link(frames, smoothing=0)
    assert len(tracks) == 2 and tracks[0].boxes[0, 0] < tracks[1].boxes[0, 0]
    np.testing.assert_allclose(tracks[0].boxes[:, 0], 0.1 + 0.01 * np.arange(10), atol=1e-9)
    assert not tracks[0].seen[4] and tracks[0].present().all()


def test_smoothing_calms_and_keeps_the_place():
    rng = np.random.default_rng(0)
    box = np.array([0.4, 0.4, 0.6, 0.6])
    noisy = [np.array([box + rng.normal(0, 0.01, 4)]) for _ in range(40)]
    rough, calm = (faces.link(noisy, amount)[0].boxes for amount in (0, 2.0))
    assert np.diff(calm, axis=0).std() < 0.3 * np.diff(rough, axis=0).std()
    np.testing.assert_allclose(calm.mean(0), box, atol=0.005)


def test_a_face_that_leaves_is_said_to(caplog):
    box = np.array([[0.4, 0.4, 0.6, 0.6]])
    empty = np.zeros((0, 5))
    tracks = faces.link([box] * 6 + [empty] * 10)
    chosen = faces.one_face(tracks, 16, "actor.mp4")
    assert chosen.present().sum() == 6 and np.allclose(chosen.boxes[-1], box[0])
    assert "leaves actor.mp4 for 10 of 16 frames" in caplog.text


def test_two_faces_take_the_largest_with_a_warning(caplog):
    pair = np.array([[0.1, 0.1, 0.3, 0.3], [0.5, 0.5, 0.9, 0.9]])
    chosen = faces.one_face(faces.link([pair] * 5), 5, "photo.png")
    assert chosen.boxes[0, 0] == pytest.approx(0.5) and "2 faces" in caplog.text


def test_no_face_is_an_error_with_a_way_out():
    with pytest.raises(HyError, match="no face") as caught:
        faces.one_face(faces.link([np.zeros((0, 5))] * 3), 3, "wall.png")
    assert "mask" in caught.value.hint


class Middle:
    def detect(self, frame):
        return np.array([[0.25, 0.25, 0.75, 0.75, 1.0]])


def test_a_detector_from_elsewhere():
    finder = faces.detector(f"{__name__}:Middle") if __name__ in __import__("sys").modules else Middle()
    assert len(faces.track(np.zeros((3, 8, 8, 3), np.uint8), finder)) == 1
    for name in ("nobody", "nowhere.at.all:Thing", "hy_avatar.faces:Nothing"):
        with pytest.raises(HyError, match="face detector"):
            faces.detector(name)


def test_missing_mediapipe_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "mediapipe", None)
    with pytest.raises(MissingError) as caught:
        faces.detector("mediapipe")
    assert "hy-avatar[mediapipe]" in caught.value.hint


@mediapipe
def test_mediapipe_finds_the_face_of_a_photograph(photo):
    finder = faces.detector("mediapipe")
    found = finder.detect(photo)
    assert len(found) == 1
    left, top, right, bottom, score = found[0]
    # By eye: the face spans x 175..275 and y 70..195 of 512.
    assert (
        0.3 < left < 0.4 and 0.48 < right < 0.6 and 0.1 < top < 0.25 and 0.3 < bottom < 0.42 and score > 0.5
    )
    assert len(finder.detect(np.full((64, 64, 3), 90, np.uint8))) == 0
    beside = np.concatenate([photo[:256, 96:352], photo[:256, 96:352]], axis=1)
    assert len(finder.detect(beside)) == 2


@mediapipe
def test_mediapipe_landmarks_of_a_photograph(photo):
    from hy_avatar.faces_mediapipe import MediaPipeLandmarks

    points = MediaPipeLandmarks().landmarks(np.stack([photo, np.zeros_like(photo)]))
    assert np.isnan(points[1]).all()
    face = points[0]
    eyes, mouth, nose = face[36:48].mean(0), face[48:68].mean(0), face[30]
    assert eyes[1] < nose[1] < mouth[1] < face[8, 1]
    assert 170 < face[:, 0].min() and face[:, 0].max() < 290
