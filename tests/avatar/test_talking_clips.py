"""A user's own clips as a source of training: what a record tells is where and when it is in the clip."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from avatar import talking
from avatar.driven import CONFIG, batch
from hy_avatar.clips import TalkingClips
from hy_avatar.driver_condition import DriverConditionBuilder
from hy_avatar.objective import Dropout
from hy_avatar.pose import from_openpose, to_openpose
from hy_avatar.recipe import TrainingConfig
from hy_avatar.stages import FaceMask, FacePoints, PersonPose, SpeechFeatures, TalkingHead
from hy_core.data import ClipRecord, SourceSpec, run_stages
from hy_core.errors import HyError, MissingError, UsageError
from hy_core.plugins import Plugins
from PIL import Image


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A JSONL file of one clip of 40 frames, whose face moves and speaks, with all that the stages find."""
    folder = tmp_path_factory.mktemp("clips")
    talking.talk(folder / "a.mp4", 40, left=30, moves=0.5)
    mute = talking.clip(folder / "b.mp4", np.full((6, 96, 128, 3), 20, np.uint8))
    cache = folder / "cache"
    stages = [
        TalkingHead(cache=cache, detector="avatar.talking:Faces", least=16.0, area=2.0),
        FacePoints(cache=cache, landmarker="avatar.talking:Points"),
        FaceMask(cache=cache, area=1.0),
        PersonPose(cache=cache, detector="avatar.talking:Bodies"),
        SpeechFeatures(cache=cache, encoder="mel", channels=20),
    ]
    records = [ClipRecord(folder / "a.mp4"), ClipRecord(mute)]
    rows = [one.to_json() for one in run_stages(stages, records)]
    assert "rejected" not in rows[0] and "no face" in rows[1]["rejected"]
    rows[0] |= {"path": "a.mp4", "captions": ["a red face", "a block"]}  # beside the file
    return write(folder / "clips.jsonl", rows)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def record(prepared, *without):
    row = json.loads(prepared.read_text().splitlines()[0])
    row["path"] = str(prepared.parent / "a.mp4")
    return {name: value for name, value in row.items() if name not in without}


def opened(path, frames=9, size=(32, 32), seed=0, count=1, split="train", **options):
    table = {"records": str(path), "heldout": 0.0, "fps": 25.0, **options}
    return TalkingClips(SourceSpec("talking-clips", split, seed, count, frames, *size, options=table))


def drawn(path, frames=9, size=(32, 32), seed=0, **options):
    return opened(path, frames, size, seed, **options)[0]


def red(frame):
    """The box of the face in a picture, in pixels."""
    return np.array(talking.box(frame.max(-1) > 110), float)


@pytest.mark.parametrize("size", [(64, 64), (32, 48), (48, 32)])
@pytest.mark.parametrize("fps", [25.0, 12.5])
def test_drivers_lie_on_the_pixels(prepared, size, fps):
    clip = drawn(prepared, 9, size, seed=3, fps=fps)
    shown, truth = clip.video(), clip.annotations()
    assert shown.shape == (9, *size, 3) and shown.dtype == np.uint8
    assert truth["portrait"].shape == (*size, 3) and truth["fps"] == fps
    for index, frame in enumerate(shown):
        seen = red(frame)
        cut = np.clip(truth["faces"][0, index], 0, [size[1], size[0]] * 2)
        np.testing.assert_allclose(cut, seen, atol=1.6)
        nose = truth["joints"][0, index, 0]
        if (size[0], size[1]) == (64, 64):
            np.testing.assert_allclose(nose, (seen[:2] + seen[2:]) / 2, atol=1.6)
            lips = truth["lips"][0, index]
            assert (lips[:2] >= seen[:2] - 1).all() and (lips[2:] <= seen[2:] + 3).all()
        mask = np.asarray(
            Image.fromarray(truth["masks"][0, index]).resize((size[1], size[0]), Image.Resampling.BOX)
        )
        inside = np.zeros(size, bool)
        x0, y0, x1, y1 = np.round(seen).astype(int)
        inside[y0:y1, x0:x1] = True
        assert np.abs((mask > 0.5) ^ inside).mean() < 0.12
    assert truth["visible"][0, 0, 0] > 0.5 and truth["visible"][0, 0, 16] == 0
    assert truth["visible"][0, 0, 91] > 0.5  # hands come along


def test_the_mouth_and_the_features_are_of_the_same_moment(prepared):
    mouth, _ = talking.syllables(40)
    for seed in range(4):
        clip = drawn(prepared, 17, (64, 64), seed)
        truth = clip.annotations()
        points = truth["landmarks"][0]
        opening = points[:, 65:68, 1].mean(1) - points[:, 61:64, 1].mean(1)
        wanted = mouth[clip.start : clip.start + 17]
        assert np.corrcoef(opening, wanted)[0, 1] > 0.9
        assert truth["heard"].shape == (1, 17, 10, 1, 20) and truth["encoder"] == "mel"
        bands = truth["heard"][0, :, 3:7, 0].mean(1)
        assert np.corrcoef(bands[:, bands.mean(0).argmax()], wanted)[0, 1] > 0.5


def test_without_features_the_sound_comes(prepared, tmp_path):
    path = write(tmp_path / "c.jsonl", [record(prepared, "speech")])
    clip = drawn(path, 9, fps=12.5)
    truth = clip.annotations()
    assert truth["speech"].shape == (1, round(9 / 12.5 * 16000)) and "heard" not in truth
    whole = np.concatenate(list(clip.segment.sound()))
    begin = round(clip.start / 12.5 * 16000)
    np.testing.assert_allclose(truth["speech"][0, :3000], whole[begin : begin + 3000], atol=1e-6)


def test_a_mute_clip_is_silent(tmp_path):
    talking.clip(tmp_path / "m.mp4")
    clip = drawn(write(tmp_path / "c.jsonl", [{"path": "m.mp4"}]))
    assert (
        not clip.annotations()["speech"].any() and clip.caption(np.random.default_rng(0)) == "a person talks"
    )


def test_captions_and_portraits_are_drawn(prepared):
    rng = np.random.default_rng(0)
    assert {drawn(prepared).caption(rng) for _ in range(12)} == {"a red face", "a block"}
    for seed in range(8):
        clip = drawn(prepared, seed=seed)
        assert clip.still < clip.start or clip.still >= clip.start + 9
    assert drawn(prepared, 40).start == 0


def test_training_conditions_come_from_it(tiny, prepared, tmp_path):
    cond = tiny.condition(rows=2)
    cond.patch = (2, 2)
    clips = [drawn(prepared, 9, (32, 32), seed) for seed in range(2)]
    builder = DriverConditionBuilder(
        "avatar", CONFIG, TrainingConfig(fix_first_frame=0.0, dropout=Dropout(speech=0.0, expression=0.0))
    )
    builder.fill(batch(clips, cond), cond)
    feed = cond.adapter_inputs["avatar"]
    assert feed["speech"]["features"].shape == (2, 1, 9, 10, 1, 20)
    for row, clip in enumerate(clips):
        wanted = torch.from_numpy(clip.annotations()["heard"])
        torch.testing.assert_close(feed["speech"]["features"][row], wanted, atol=2e-2, rtol=2e-3)
    assert feed["speech"]["mask"].amax() == 1
    assert torch.isfinite(feed["expression"]["features"]).all() and feed["pose"].shape[0] == 2


def test_features_of_another_encoder_are_one_line(tiny, prepared):
    from dataclasses import replace

    config = replace(CONFIG, speech=replace(CONFIG.speech, channels=24))
    cond = tiny.condition(rows=1)
    with pytest.raises(UsageError, match=r"mel 10 1 20, the avatar takes mel 10 1 24"):
        DriverConditionBuilder("avatar", config, TrainingConfig(fix_first_frame=0.0)).fill(
            batch([drawn(prepared)], cond), cond
        )


def test_a_driver_without_its_stage_is_one_line(tiny, prepared, tmp_path):
    path = write(tmp_path / "c.jsonl", [record(prepared, "points")])
    cond = tiny.condition(rows=1)
    with pytest.raises(UsageError, match="trained on 'landmarks'") as error:
        DriverConditionBuilder("avatar", CONFIG, TrainingConfig(fix_first_frame=0.0)).fill(
            batch([drawn(path)], cond), cond
        )
    assert "stage" in error.value.hint


def test_spans_are_where_they_say(prepared, tmp_path):
    whole = drawn(write(tmp_path / "w.jsonl", [{"path": str(prepared.parent / "a.mp4")}]), 40, (96, 128))
    part = drawn(
        write(tmp_path / "p.jsonl", [{"path": str(prepared.parent / "a.mp4"), "span": [0.4, 0.8]}]),
        10, (96, 128),
    )  # fmt: skip
    assert np.array_equal(part.video(), whole.video()[10:20])


@pytest.mark.parametrize(
    ("rows", "error", "said"),
    [
        ([], HyError, "it is empty"),
        ([{"path": "a.mp4", "rejected": "x"}], HyError, "all 1 are rejected"),
        ([{"path": "gone.mp4"}], MissingError, "line 1: no such file: gone.mp4"),
        ([{"span": [0, 1]}], HyError, "line 1: a record without a path"),
        ([[1]], HyError, "line 1: .1. is not a record"),
    ],
)
def test_files_of_records_that_are_none(tmp_path, rows, error, said):
    with pytest.raises(error, match=said):
        opened(write(tmp_path / "c.jsonl", rows))


def test_what_can_t_be_drawn(prepared):
    with pytest.raises(UsageError, match="has 99 frames at 25"):
        drawn(prepared, 99)
    with pytest.raises(UsageError, match="none of 1 files is in the split 'heldout'"):
        opened(prepared, split="heldout", heldout=1e-6)
    with pytest.raises(UsageError, match="no records"):
        opened("")
    for wrong in ({"fps": math.nan}, {"fps": 0.0}, {"heldout": 1.0}, {"people": 2}):
        with pytest.raises(UsageError, match="fps|heldout|people"):
            opened(prepared, **wrong)


def test_it_is_finite_and_its_fingerprint_follows_the_files(prepared, tmp_path):
    source = opened(prepared, count=5)
    assert len(list(source)) == len(source) == 5 and source.shape(0) == (9, 32, 32)
    assert len(opened(prepared, count=0)) == 1  # all that there are
    with pytest.raises(IndexError):
        source[5]
    assert source.fingerprint == opened(prepared, count=5).fingerprint
    talking.clip(tmp_path / "m.mp4")
    path = write(tmp_path / "c.jsonl", [{"path": "m.mp4"}])
    before = opened(path).fingerprint
    talking.clip(tmp_path / "m.mp4", np.full((9, 96, 128, 3), 20, np.uint8))
    assert opened(path).fingerprint != before


def test_joints_go_to_coco_and_back():
    rng = np.random.default_rng(0)
    points, scores = rng.random((3, 133, 2)), rng.uniform(0.5, 1, (3, 133))
    back, marks = from_openpose(*to_openpose(points, scores))
    np.testing.assert_array_equal(back, points)
    np.testing.assert_array_equal(marks, scores)


def test_it_is_a_source_by_its_name():
    plugins = Plugins()
    plugins.conditioners(["avatar"])
    assert plugins.datasets()["talking-clips"] is TalkingClips
