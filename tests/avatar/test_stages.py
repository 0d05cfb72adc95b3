"""Stages: what makes a clip unfit, what is kept of one that is fit, and that damage is a reason and no crash."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from avatar import talking
from hy_avatar import pose
from hy_avatar.stages import (
    FaceMask,
    FacePoints,
    LipSync,
    PersonPose,
    SpeechFeatures,
    TalkingHead,
    VoicePresence,
)
from hy_avatar.stages.heads import load_track, square
from hy_avatar.stages.points import load_points
from hy_avatar.stages.voices import agreement, load_speech, loudness
from hy_avatar.video_segment import VideoSegment
from hy_core.data import ClipRecord, Stage, run_stages
from hy_core.errors import HyError, MissingError, UsageError
from hy_core.plugins import Plugins


def one(stage: Stage, record) -> dict:
    before = ClipRecord(record) if isinstance(record, Path) else ClipRecord.from_json(record)
    (after,) = stage.run(before)
    row = after.to_json()
    assert json.loads(json.dumps(row)) == row  # fit for a manifest
    return row


@pytest.fixture
def head(tmp_path):
    def head(**more):
        return TalkingHead(
            **{"cache": tmp_path / "c", "detector": "avatar.talking:Faces", "least": 16.0} | more
        )

    return head


@pytest.fixture
def points(tmp_path):
    return FacePoints(cache=tmp_path / "c", landmarker="avatar.talking:Points")


# -- segment ----------------------------------------------------------------------------------------------


def numbered(path: Path, frames: int, fps: float) -> Path:
    """A clip whose frame i has the level 4 * i."""
    shown = np.repeat(np.arange(frames, dtype=np.uint8) * 4, 32 * 32 * 3).reshape(frames, 32, 32, 3)
    return talking.clip(path, shown, fps=fps)


def numbers(frames) -> list[int]:
    return [round(float(frame.mean()) / 4) for frame in frames]


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_frames_at_their_time(tmp_path, suffix):
    path = numbered(tmp_path / f"a{suffix}", 50, 25)
    assert numbers(VideoSegment(path).frames()) == list(range(50))
    assert numbers(VideoSegment(path, (0.4, 1.2)).frames()) == list(range(10, 30))
    assert numbers(VideoSegment(path, (0.4, 1.2)).frames(start=0.2, count=3)) == [15, 16, 17]
    assert numbers(VideoSegment(path).frames(fps=12.5)) == list(range(0, 50, 2))
    assert numbers(VideoSegment(path).frames(fps=50, count=6)) == [0, 0, 1, 1, 2, 2]
    with pytest.raises(HyError, match=r"no frames from 9 s on"):
        list(VideoSegment(path, (9.0, 10.0)).frames())


def test_sound_is_where_the_picture_is(tmp_path):
    sound = np.zeros((1, 2 * talking.RATE), np.float32)
    sound[:, talking.RATE :] = 0.5 * np.sin(np.arange(talking.RATE) / 5)
    plain = talking.clip(tmp_path / "a.mp4", np.zeros((50, 32, 32, 3), np.uint8), sound)
    late = talking.shifted(tmp_path / "b.mkv", plain, 0.5)
    for path, begins in ((plain, 1.0), (late, 1.5)):
        heard = np.concatenate(list(VideoSegment(path).sound()))
        assert np.flatnonzero(np.abs(heard) > 0.05)[0] / 16000 == pytest.approx(begins, abs=0.03)
        part = np.concatenate(list(VideoSegment(path, (0.8, 1.9)).sound()))
        assert np.flatnonzero(np.abs(part) > 0.05)[0] / 16000 == pytest.approx(begins - 0.8, abs=0.03)
        assert len(part) == pytest.approx(1.1 * 16000, abs=2)


@pytest.mark.parametrize("record", [{}, {"path": "a", "span": [2, 1]}, {"path": "a", "crop": [0, 0, 0, 4]}])
def test_what_is_no_record(record):
    with pytest.raises(UsageError):
        VideoSegment.of(ClipRecord.from_json(record))


# -- heads ------------------------------------------------------------------------------------------------


def test_a_talking_head_is_cut_out_square(tmp_path, head):
    row = one(head(area=2.0), talking.clip(tmp_path / "a.mp4", talking.pictures(left=40, moves=0.5)))
    left, top, right, bottom = row["crop"]
    assert "rejected" not in row and right - left == bottom - top and 63 <= right - left <= 67
    assert abs((left + right) / 2 - (40 + 4.75 + 16)) < 2 and abs((top + bottom) / 2 - 40) < 2
    track, fps = load_track(row["faces"])
    assert fps == 25 and len(track.boxes) == 20 and track.seen.all()
    # The boxes are in parts of the crop.
    np.testing.assert_allclose(track.boxes[:, 2] - track.boxes[:, 0], 0.5, atol=0.03)
    again = one(head(area=2.0), row)
    assert again == row


@pytest.mark.parametrize(
    ("shown", "options", "reason"),
    [
        (np.full((6, 96, 128, 3), 20, np.uint8), {}, "no face"),
        (talking.pictures(8, left=10, second=True), {}, "2 faces"),
        (talking.pictures(8), {"least": 64.0}, "a face of 32 pixels, below 64"),
        (talking.pictures(20, left=60, moves=4), {}, "out of sight in 5"),
        (talking.pictures(20, left=0, moves=4.5), {}, "moves too far"),
        (talking.pictures(20), {"most": 0.5}, "longer than 0.5 s"),
    ],
)
def test_unfit_clips_are_dropped_with_the_reason(tmp_path, head, shown, options, reason):
    row = one(head(**options), talking.clip(tmp_path / "a.mp4", shown))
    assert row["rejected"].startswith("talking-head: ") and reason in row["rejected"] and "crop" not in row


def test_the_largest_of_two_faces_may_be_taken(tmp_path, head):
    path = talking.clip(tmp_path / "a.mp4", talking.pictures(8, left=10, second=True))
    row = one(head(several="largest"), path)
    assert "rejected" not in row and row["crop"][2] < 100


def test_a_crop_stays_inside_and_holds_the_face():
    boxes = np.array([[2.0, 2, 22, 22], [8, 2, 28, 22]])
    assert square(boxes, 40, 96, 128) == (0, 0, 40, 40)
    assert square(boxes, 10, 96, 128) == (2, 0, 28, 26)  # the way of the face is more than asked for
    assert square(boxes, 400, 96, 128) == (0, 0, 96, 96)
    assert square(np.array([[0.0, 0, 110, 20]]), 40, 96, 128) is None


def test_files_that_can_t_be_read_are_a_reason(tmp_path, head):
    (tmp_path / "text.mp4").write_text("no video")
    for name in ("text.mp4", "missing.mp4"):
        assert name in one(head(), tmp_path / name)["rejected"]
    sound = talking.stereo_24(tmp_path / "talk.wav", np.zeros((1, 8000)))
    assert "no picture stream" in one(head(), sound)["rejected"]


def test_what_isn_t_installed_is_no_fault_of_the_clip(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(MissingError, match="MediaPipe"):
        one(TalkingHead(cache=tmp_path), talking.clip(tmp_path / "a.mp4"))


def test_a_crop_after_other_finds_is_refused(tmp_path, head, points):
    row = one(points, talking.clip(tmp_path / "a.mp4"))
    with pytest.raises(UsageError, match="put talking-head first|talking-head comes after"):
        one(head(), row)


# -- points, masks, poses ---------------------------------------------------------------------------------


def test_points_and_masks_are_of_the_crop(tmp_path, head, points):
    from hy_avatar import masks

    row = one(points, one(head(), talking.clip(tmp_path / "a.mp4")))
    found, fps = load_points(row["points"])
    assert found.shape == (20, 68, 2) and fps == 25 and row["points_seen"] == 1
    middle = (found[0].min(0) + found[0].max(0)) / 2
    assert np.abs(middle - 0.5).max() < 0.12
    for shape, share in (("box", 0.25), ("ellipse", np.pi / 16), ("outline", 0.15)):
        made = one(FaceMask(cache=tmp_path, shape=shape, area=1.0, size=48), row)
        drawn = masks.read(made["mask"], 20, 64, 64, 25.0)  # as --avatar-mask reads it
        assert drawn.shape == (20, 64, 64) and drawn[:, 32, 32].all() and not drawn[:, :4].any()
        assert drawn.mean() == pytest.approx(share, abs=0.07)


def test_points_that_are_hardly_there(tmp_path, points):
    row = one(points, talking.clip(tmp_path / "a.mp4", talking.pictures(20, left=80, moves=4)))
    assert "points of a face in 25%" in row["rejected"] and "points" not in row


def test_masks_need_what_they_are_drawn_from(tmp_path):
    path = talking.clip(tmp_path / "a.mp4")
    for shape, before in (("box", "talking-head"), ("outline", "face-points")):
        with pytest.raises(UsageError) as error:
            one(FaceMask(cache=tmp_path, shape=shape), path)
        assert before in error.value.hint


def test_a_pose_is_kept_as_a_pose_file(tmp_path):
    stage = PersonPose(cache=tmp_path, detector="avatar.talking:Bodies")
    row = one(stage, talking.clip(tmp_path / "a.mp4"))
    track = pose.load(row["pose"])
    assert row["people"] == 1 and len(track) == 20 and track.fps == 25
    np.testing.assert_allclose(track.points[0, 0, 0], [56 / 128, 40 / 96], atol=0.02)
    two = talking.clip(tmp_path / "b.mp4", talking.pictures(8, left=10, second=True))
    assert one(stage, two)["rejected"] == "person-pose: 2 people"
    nobody = talking.clip(tmp_path / "c.mp4", np.full((6, 96, 128, 3), 20, np.uint8))
    assert "no person was found" in one(stage, nobody)["rejected"]


# -- voices -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", ["mel", "whisper"])
def test_features_that_are_kept_are_those_of_a_run(tmp_path, released_folder, encoder):
    import torch
    from hy_avatar.config import Speech
    from hy_avatar.speech import Span, features, speech_encoder, windowed

    path = talking.talk(tmp_path / "a.mp4", 50)
    stage = SpeechFeatures(
        cache=tmp_path, encoder=encoder, channels=20, whisper=released_folder / "whisper-tiny"
    )
    row = one(stage, path)
    states, samples, name = load_speech(row["speech"])
    assert name == encoder and samples == pytest.approx(32000, abs=2000)
    ears = speech_encoder(Speech(encoder=encoder, channels=20), released_folder / "whisper-tiny")
    for span in (Span(25, 25), Span(9, 12.5, 6), Span(20, 25, 45)):
        wanted = features(VideoSegment(path).sound(), ears, span)
        torch.testing.assert_close(
            windowed(torch.from_numpy(states), samples, span), wanted, atol=2e-2, rtol=2e-3
        )


def test_clips_without_speech(tmp_path):
    stage = VoicePresence(detector="silence")
    mute = talking.clip(tmp_path / "a.mp4")
    assert "no sound stream" in one(stage, mute)["rejected"]
    still = talking.clip(tmp_path / "b.mp4", sound=np.zeros((1, 12800), np.float32))
    assert "speech in 0%" in one(stage, still)["rejected"]
    row = one(stage, talking.talk(tmp_path / "c.mp4", 50))
    assert row["voice_ratio"] > 0.9 and "rejected" not in row
    assert "no sound stream" in one(SpeechFeatures(cache=tmp_path, encoder="mel"), mute)["rejected"]


def test_lips_that_follow_the_sound(tmp_path, points):
    stage = LipSync(least=0.5)
    good = one(stage, one(points, talking.talk(tmp_path / "a.mp4", 75)))
    assert good["sync_score"] > 0.8 and "rejected" not in good
    dubbed = one(stage, one(points, talking.talk(tmp_path / "b.mp4", 75, late=0.6)))
    assert dubbed["rejected"].startswith("lip-sync: score")
    still = one(stage, one(points, talking.clip(tmp_path / "c.mp4", sound=talking.syllables(20)[1])))
    assert still["sync_score"] is None and "rejected" not in still
    with pytest.raises(UsageError, match="points"):
        one(stage, tmp_path / "a.mp4")


def test_the_shift_between_sound_and_lips_is_found():
    opening, sound = talking.syllables(100)
    loud = loudness(sound[0], 100, 25)
    score, offset = agreement(opening[3:], loud[:-3], 25, 0.4)
    assert offset == pytest.approx(0.12, abs=0.041) and score > 0.9
    assert agreement(opening, np.zeros(100), 25, 0.4) is None


# -- together ---------------------------------------------------------------------------------------------


def test_all_stages_in_order_and_again_from_the_cache(tmp_path, head, points):
    cache = tmp_path / "c"
    stages = [
        head(),
        points,
        FaceMask(cache=cache),
        PersonPose(cache=cache, detector="avatar.talking:Bodies"),
        VoicePresence(detector="silence"),
        SpeechFeatures(cache=cache, encoder="mel", channels=20),
        LipSync(),
    ]
    good, bad = talking.talk(tmp_path / "good.mp4", 30), talking.clip(tmp_path / "bad.mp4")
    by_hand = ClipRecord(Path("x"), rejected="by hand")
    rows = list(run_stages(stages, [ClipRecord(good), ClipRecord(bad), by_hand]))
    assert {"crop", "faces", "points", "mask", "pose", "speech"} <= rows[0].to_json().keys()
    assert rows[1].rejected.startswith("voice-presence") and rows[2] == by_hand
    before = sorted(cache.rglob("*.*"))
    assert list(run_stages(stages, rows)) == rows and sorted(cache.rglob("*.*")) == before


def test_other_options_have_other_files(tmp_path):
    path = talking.talk(tmp_path / "a.mp4")
    stages = [SpeechFeatures(cache=tmp_path, encoder="mel", channels=n) for n in (20, 24)]
    files = {one(stage, path)["speech"] for stage in stages}
    files.add(one(stages[0], {"path": str(path), "span": [0.0, 0.4]})["speech"])
    assert len(files) == 3


def test_stages_are_registered_without_torch():
    plugins = Plugins()
    plugins.conditioners(["avatar"])
    names = {
        "talking-head", "face-points", "face-mask", "person-pose", "speech-features", "voice-presence", "lip-sync",
    }  # fmt: skip
    assert names <= set(plugins.stages())
    assert all(plugins.stages()[name].name == name for name in names)
    code = (
        "import sys; import hy_avatar.stages, hy_avatar.stages.stage_cache; print('hy_data' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.skipif(importlib.util.find_spec("mediapipe") is None, reason="MediaPipe is not installed")
def test_a_real_face_with_mediapipe(tmp_path):
    from PIL import Image

    found = importlib.util.find_spec("skimage")
    if found is None:
        pytest.skip("scikit-image, which carries the photograph, is not installed")
    photo = np.asarray(Image.open(Path(found.origin).parent / "data" / "astronaut.png").convert("RGB"))
    shown = np.stack([np.roll(photo, 2 * shift, 1) for shift in range(6)])
    cache = tmp_path / "c"
    stages = [
        TalkingHead(cache=cache, area=3.5), FacePoints(cache=cache), FaceMask(cache=cache, shape="outline"),
        PersonPose(cache=cache),
    ]  # fmt: skip
    (row,) = run_stages(stages, [ClipRecord(talking.clip(tmp_path / "a.mp4", shown))])
    assert not row.rejected, row
    left, top, right, bottom = row.crop
    assert left < 225 < right and top < 115 < bottom and 200 < right - left <= 512  # her face
    points, _ = load_points(row.result_file("points"))
    assert np.all(points > 0) and np.all(points < 1)
    track = pose.load(row.result_file("pose"))
    # Nose by the pose and by the mesh are one.
    np.testing.assert_allclose(track.points[2, 0, 0], points[2, 30], atol=0.08)
