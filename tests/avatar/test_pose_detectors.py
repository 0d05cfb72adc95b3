"""DWPose's ONNX path with graphs made here, through rtmlib's own pre- and post-processing; MediaPipe on a photo."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
from hy_avatar import pose
from hy_avatar.pose_detectors import DETECTOR_SIZE, POSE_SIZE, DWPose, MediaPipePose
from hy_core.errors import HyError, MissingError

rtmlib = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("rtmlib", "onnx", "onnxruntime")),
    reason="rtmlib, onnx or onnxruntime is not installed",
)


def pose_graph(path: Path) -> Path:
    """A SimCC network: joint k lies where channel k % 3 of the crop is brightest."""
    from onnx import TensorProto, helper, numpy_helper, save

    width, height = POSE_SIZE
    channels = np.arange(133) % 3
    nodes = [helper.make_node("Gather", ["image", "order"], ["maps"], axis=1)]
    for name in "xy":
        nodes += [
            helper.make_node("ReduceMax", ["maps", f"axis_{name}"], [f"line_{name}"], keepdims=0),
            helper.make_node("Resize", [f"line_{name}", "", "twice"], [f"simcc_{name}"], mode="linear"),
        ]
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, height, width])]
    outputs = [
        helper.make_tensor_value_info(f"simcc_{name}", TensorProto.FLOAT, [1, 133, 2 * size])
        for name, size in (("x", width), ("y", height))
    ]
    constants = [
        numpy_helper.from_array(channels.astype(np.int64), "order"),
        numpy_helper.from_array(np.array([2], np.int64), "axis_x"),
        numpy_helper.from_array(np.array([3], np.int64), "axis_y"),
        numpy_helper.from_array(np.array([1, 1, 2], np.float32), "twice"),
    ]
    graph = helper.make_graph(nodes, "pose", inputs, outputs, constants)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def person_graph(path: Path, box: tuple[float, float, float, float]) -> Path:
    """A YOLOX network without NMS: one person at `box` (pixels of its 640 x 640) as sure as the picture is bright."""
    from onnx import TensorProto, helper, numpy_helper, save

    rows = sum((DETECTOR_SIZE[0] // stride) ** 2 for stride in (8, 16, 32))
    base = np.zeros((1, rows, 85), np.float32)
    mark = np.zeros_like(base)
    left, top, right, bottom = box
    x, y = int((left + right) / 2) // 8, int((top + bottom) / 2) // 8
    cell = y * (DETECTOR_SIZE[1] // 8) + x
    base[0, cell, :4] = (
        (left + right) / 16 - x,
        (top + bottom) / 16 - y,
        math.log((right - left) / 8),
        math.log((bottom - top) / 8),
    )
    base[0, cell, 5] = 1.0
    mark[0, cell, 4] = 1 / 141
    nodes = [
        helper.make_node("ReduceMax", ["image"], ["bright"], keepdims=0),
        helper.make_node("Sub", ["bright", "pad"], ["above"]),
        helper.make_node("Mul", ["mark", "above"], ["sure"]),
        helper.make_node("Add", ["base", "sure"], ["out"]),
    ]
    constants = [
        numpy_helper.from_array(base, "base"),
        numpy_helper.from_array(mark, "mark"),
        numpy_helper.from_array(np.float32(114), "pad"),
    ]
    graph = helper.make_graph(
        nodes,
        "person",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 640, 640])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, rows, 85])],
        constants,
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def dots(height=480, width=320):
    """A grey picture with a red, a green and a blue dot."""
    frame = np.full((height, width, 3), 40, np.uint8)
    places = ((120, 200), (180, 260), (150, 330))
    for channel, (x, y) in enumerate(places):
        frame[y - 2 : y + 3, x - 2 : x + 3] = 40
        frame[y - 2 : y + 3, x - 2 : x + 3, channel] = 255
    return frame, places


@rtmlib
@pytest.mark.parametrize("with_detector", [True, False])
def test_joints_come_back_in_pixels_of_the_frame(tmp_path, with_detector):
    frame, places = dots()
    # The frame is letterboxed to 640 high: ratio 4/3, so this is (60, 90) to (270, 420) of the frame.
    person = person_graph(tmp_path / "person.onnx", (80, 120, 360, 560)) if with_detector else None
    finder = DWPose(pose_graph(tmp_path / "pose.onnx"), person)
    points, scores = finder.detect(frame)
    assert points.shape == (1, 133, 2) and scores.min() > 0.3
    for joint in (0, 1, 2, 30, 100, 132):
        # rtmlib hands the network BGR: channel 0 is blue.
        np.testing.assert_allclose(points[0, joint], places[2 - joint % 3], atol=3)


@rtmlib
def test_nobody_in_a_dark_picture(tmp_path):
    finder = DWPose(
        pose_graph(tmp_path / "pose.onnx"), person_graph(tmp_path / "p.onnx", (80, 120, 360, 560))
    )
    points, _ = finder.detect(np.zeros((480, 320, 3), np.uint8))
    assert points.shape == (0, 133, 2)
    with pytest.raises(HyError, match="no person was found in dance.mp4"):
        pose.extract(np.zeros((3, 480, 320, 3), np.uint8), finder, 25, "dance.mp4")


@rtmlib
def test_our_order_is_rtmlibs_openpose_order():
    from rtmlib.tools.pose_estimation.post_processings import convert_coco_to_openpose

    rng = np.random.default_rng(0)
    points, scores = rng.uniform(0, 100, (2, 133, 2)), rng.uniform(0.4, 1, (2, 133))
    theirs, ours = convert_coco_to_openpose(points.copy(), scores.copy()), pose.to_openpose(points, scores)
    np.testing.assert_allclose(ours[0], theirs[0])
    scores[0, 5] = 0.1
    assert pose.to_openpose(points, scores)[1][0, 1] < 0.3


@rtmlib
def test_bad_files_are_said_to_be(tmp_path):
    with pytest.raises(MissingError, match="no such ONNX file"):
        DWPose(tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"not a network")
    with pytest.raises(HyError, match="cannot be loaded"):
        DWPose(tmp_path / "bad.onnx")


def test_missing_libraries_say_what_to_install(tmp_path, monkeypatch):
    import sys

    (tmp_path / "pose.onnx").write_bytes(b"")
    for name in ("rtmlib", "mediapipe"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingError) as caught:
        DWPose(tmp_path / "pose.onnx")
    assert "hy-avatar[pose]" in caught.value.hint
    with pytest.raises(MissingError) as caught:
        MediaPipePose()
    assert "hy-avatar[mediapipe]" in caught.value.hint


@pytest.mark.skipif(importlib.util.find_spec("mediapipe") is None, reason="MediaPipe is not installed")
@pytest.mark.skipif(importlib.util.find_spec("skimage") is None, reason="scikit-image has the photograph")
def test_mediapipe_sees_the_astronaut():
    from PIL import Image

    folder = Path(importlib.util.find_spec("skimage").origin).parent / "data"
    photo = np.asarray(Image.open(folder / "astronaut.png").convert("RGB"))
    finder = MediaPipePose()
    track = pose.extract([photo], finder, 1.0)
    assert track.people == 1
    person = track.points[0, 0] * 512
    nose, neck, right, left = person[[0, 1, 2, 5]]
    assert 200 < nose[0] < 250 and 90 < nose[1] < 150  # by eye: the nose is at (225, 120)
    assert right[0] < neck[0] < left[0] and nose[1] < neck[1] < 320
    assert np.isfinite(person[pose.FACE]).all() and 170 < person[pose.FACE, 0].min()
    assert len(MediaPipePose().detect(np.full((64, 64, 3), 90, np.uint8))[0]) == 0
