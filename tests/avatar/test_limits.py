"""Lengths of clips at any frame rate, and files of poses and masks from strangers."""

from __future__ import annotations

import json
import zipfile
from fractions import Fraction

import numpy as np
import pytest
from avatar import small
from hy_avatar import arrays, masks, pose
from hy_avatar.plugin import Avatar
from hy_core.errors import HyError, UsageError

SIZE = {"width": 64, "height": 64}


@pytest.fixture
def options(tmp_path):
    return {"image": small.portrait(tmp_path / "face.png")}


def track(frames: int, fps: float = 8.0) -> pose.PoseTrack:
    points = np.full((frames, 1, pose.POINTS, 2), 0.5)
    return pose.PoseTrack(points, np.ones(points.shape[:3]), fps, 1.0)


@pytest.mark.parametrize(("fps", "frames"), [(8.0, 17), (12.0, 25), (24.0, 49), (5.0, 13)])
@pytest.mark.parametrize("driver", ["speech", "pose", "expression"])
def test_a_clip_is_as_long_as_its_drivers_at_any_rate(options, tmp_path, driver, fps, frames):
    if driver == "speech":
        options["speech"] = [small.tone(tmp_path / "a.wav", 2.0)]
    else:
        pose.save(tmp_path / "a.json", track(16))
        options[driver] = tmp_path / "a.json"
    found = Avatar(**options).defaults({**SIZE, "fps": fps, "frames": 17})
    assert found["frames"] == frames and frames / fps >= 2


@pytest.mark.parametrize(
    ("source", "fps"),
    [("flag", 24), ("environment", 12), ("file", 24), ("row", 12)],
)
def test_the_rate_may_come_from_anywhere(hy, options, tmp_path, monkeypatch, source, fps):
    monkeypatch.chdir(tmp_path)
    speech = small.tone(tmp_path / "a.wav", 2.0)
    words = ["generate", "-p", "avatar", "--avatar-image", options["image"], "--avatar-speech", speech]
    words += ["--dry-run", "--json"]
    prompt: list[object] = ["x"]
    if source == "flag":
        words += ["--fps", fps]
    if source == "environment":
        monkeypatch.setenv("HY_FPS", str(fps))
    if source == "file":
        (tmp_path / "hy.toml").write_text(f"fps = {fps}\n")
        words += ["-c", "hy.toml"]
    if source == "row":
        (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "x", "fps": fps}) + "\n")
        words, prompt = [*words, "--batch", "rows.jsonl"], []
    run = hy(*words, *prompt)
    assert run.exit_code == 0, run.stderr
    request = json.loads(run.stdout)["request"]
    assert request["fps"] == fps and request["frames"] == {12: 25, 24: 49}[fps]


@pytest.mark.parametrize("seconds", [0.02, 0.1])
def test_short_speech_is_a_video(options, tmp_path, seconds):
    avatar = Avatar(**options, speech=[small.tone(tmp_path / "a.wav", seconds)])
    assert avatar.defaults({**SIZE, "fps": 8.0, "frames": 17})["frames"] == 5


def pose_table(frames: list[object]) -> str:
    return json.dumps({"format": "hy-pose", "version": 1, "fps": 8, "aspect": 1, "frames": frames})


PERSON = [[0.5, 0.5, 1.0]] * pose.POINTS


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([[0] * 900, *[[]] * 899], "too large: 900 people in 900 frames"),
        ([[PERSON] * 150, *[[]] * 149], "too large: 150 people in 150 frames"),
        ([[[]] * 3], "damaged pose file"),
        ([[[None] * pose.POINTS]], "holds no person"),
        ([1], "damaged pose file"),
        ([[PERSON[:-1] + [["x", 1, 1]]]], "damaged pose file"),
    ],
)
def test_a_pose_table_that_is_no_pose_is_one_line(tmp_path, frames, message):
    (tmp_path / "a.json").write_text(pose_table(frames))
    with pytest.raises(HyError, match=message):
        pose.load(tmp_path / "a.json")


def test_a_pose_table_of_many_lists_is_not_parsed(tmp_path, monkeypatch):
    (tmp_path / "a.json").write_text(pose_table([[] for _ in range(600)]))
    monkeypatch.setattr(pose, "MAX_LISTS", 500)
    with pytest.raises(HyError, match="too large for a pose file in JSON"):
        pose.load(tmp_path / "a.json")


def test_an_array_file_that_unpacks_to_too_much_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "MAX_BYTES", 1 << 16)
    path = tmp_path / "a.npz"
    arrays.write(path, points=np.zeros(1 << 18, np.float32))
    assert path.stat().st_size < 1 << 14
    with pytest.raises(HyError, match="too large: 1 MB of arrays"):
        arrays.read(path, max_bytes=1 << 16)
    with pytest.raises(HyError, match="too large"):
        pose.load(_grown(tmp_path / "b.npz"))


def _grown(path):
    """A pose file of 0.1 MB that unpacks to 100 MB."""
    zeros = np.zeros((50_000, 2, 134, 2), np.float32)
    arrays.write(path, format="hy-pose", version=1, points=zeros, scores=zeros[..., 0], fps=8.0, aspect=1.0)
    return path


@pytest.mark.parametrize("damage", ["data", "header", "shape", "cut", "none", "object"])
def test_damaged_array_files_are_one_line(tmp_path, damage):
    path = tmp_path / "a.npz"
    pose.save(path, track(9))
    data = bytearray(path.read_bytes())
    if damage == "data":
        data[len(data) // 2 : len(data) // 2 + 8] = b"\xff" * 8
    if damage == "cut":
        del data[-40:]
    if damage == "none":
        data = bytearray(b"\0" * 20)
    path.write_bytes(data)
    if damage in ("header", "shape"):
        shape = "(4,)" if damage == "header" else "(999999999999,)"
        text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
        blob = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + b"\0\0"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("points.npy", blob)
    if damage == "object":
        np.savez(path, points=np.array([{}], object))
    with pytest.raises(HyError) as caught:
        pose.load(path)
    assert "\n" not in caught.value.message and "a.npz" in caught.value.message


def test_a_mask_video_is_read_by_its_times(tmp_path):
    from core.timed_clips import greys, timed_clip

    path = timed_clip(tmp_path / "m.mp4", greys([0, 80, 160, 240]), [0, 0.1, 0.2, 1.0])
    found = masks.read(path, 5, 32, 32, fps=4.0).mean((1, 2)) * 255
    np.testing.assert_allclose(found, [0, 160, 160, 160, 240], atol=6)


def test_a_mask_file_with_a_rate_is_read_by_it(tmp_path):
    values = np.repeat(np.linspace(0, 1, 10, dtype=np.float32), 16).reshape(10, 4, 4)
    np.savez(tmp_path / "m.npz", mask=values, fps=10.0)
    found = masks.read(tmp_path / "m.npz", 5, 4, 4, fps=5.0)
    np.testing.assert_array_equal(found, values[::2])


@pytest.mark.parametrize("name", ["a\0b.wav", "a\udcffb.wav", "x" * 300])
def test_names_that_no_file_can_have_are_one_line(options, name):
    for driver in ("pose", "expression", "speech", "weights"):
        value = [name] if driver == "speech" else name
        with pytest.raises(UsageError) as caught:
            Avatar(**options, **{driver: value}).validate(None)
        assert "\n" not in caught.value.message and "\0" not in caught.value.message


def test_a_turned_pose_video_of_varying_rate_is_read_by_its_times(tmp_path):
    from core.timed_clips import greys, timed_clip

    class Level:
        """Finds one person whose place is the brightness."""

        def detect(self, frame):
            points = np.full((1, 133, 2), frame.mean() / 255 * frame.shape[1])
            return points, np.ones((1, 133))

    frames = greys([40, 80, 120, 160], 64, 96)
    path = timed_clip(tmp_path / "p.mp4", frames, [0, 0.25, 0.5, 1.5], turn=90, pixel_ratio=Fraction(1))
    found = pose.load(path, Level())
    assert found.aspect == pytest.approx(64 / 96)
    seconds = np.arange(len(found)) / found.fps
    levels = found.points[:, 0, 0, 0] * 255
    for second, level in zip(seconds, levels, strict=True):
        wanted = 40 if second < 0.2 else 80 if second < 0.45 else 120 if second < 1.45 else 160
        if min(abs(second - edge) for edge in (0.25, 0.5, 1.5)) > 0.1:
            assert level == pytest.approx(wanted, abs=6), second
