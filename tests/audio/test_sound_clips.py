"""The dataset `sound-clips`: windows of your own files, by the records of the stages, and training on them."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from audio.clips import clip, not_numbers, pictures, tone, uneven
from hy_audio.sound_files import write_sound
from hy_audio.stages import Presence, SoundCaption
from hy_audio.training import clips as source
from hy_audio.training.clips import SoundClips, caption_of
from hy_core import media
from hy_core.data import ClipRecord, SourceSpec, is_heldout, read_manifest, run_stages
from hy_core.errors import HyError, MissingError, UsageError
from hy_core.request import Sound

FPS, RATE = 10, 16000


def told(path: Path, seconds: float = 4.0, name: str = "a.mp4") -> Path:
    """A clip whose pictures and sound both tell the time: every half second is brighter and louder than the last."""
    steps = np.arange(round(seconds * FPS)) * 2 // FPS
    frames = (
        np.repeat((20 + 25 * steps).astype(np.uint8)[:, None, None, None], 48, 1).repeat(64, 2).repeat(3, 3)
    )
    level = 0.05 * (1 + np.arange(round(seconds * RATE)) * 2 // RATE)
    return media.write(
        path / name, frames, FPS, Sound(tone(seconds, RATE, 400, 1.0) * level.astype(np.float32), RATE)
    )


def records(path: Path, *rows: dict) -> Path:
    """A JSONL of rows."""
    target = path / "clips.jsonl"
    target.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return target


def opened(
    path: Path | str, count: int = 1 << 20, seed: int = 0, split: str = "train", group: int = 1, **table
):
    spec = SourceSpec("sound-clips", split, seed, count, group=group, options={"records": str(path), **table})
    return SoundClips(spec)


def alone(path: Path, seed: int = 0, group: int = 1, **more) -> SoundClips:
    table = {"heldout": 0.0, "seconds": [1.0, 2.0], "fps": 20, **more}
    return opened(path, seed=seed, group=group, **table)


def heard(item) -> np.ndarray:
    """The samples of a clip's sound."""
    return item.sound().samples[0]


# -- what a clip is ----------------------------------------------------------------------------------------


def test_pictures_and_sound_of_a_window_are_of_the_same_moment(tmp_path):
    told(tmp_path)
    found = alone(
        records(tmp_path, {"path": "a.mp4", "span": [0.5, 3.5], "audio_caption": {"text": "a tone."}})
    )
    starts = set()
    for index in range(12):
        item = found[index]
        seen, samples = item.video(), heard(item)
        assert item.sound().rate == RATE and item.caption(None) == "a tone." and seen.dtype == np.uint8
        assert len(seen) == round(len(samples) / RATE * 20) and seen.shape[1:] == (48, 64, 3)
        assert 0.5 <= item.start <= 3.5 - len(samples) / RATE + 1e-6
        starts.add(round(item.start, 1))
        for frame in range(0, len(seen), 5):
            moment = item.start + frame / 20
            if min(moment % 0.5, 0.5 - moment % 0.5) < 0.12:
                continue  # too near to a step
            step = int(moment * 2)
            assert abs(float(seen[frame].mean()) - (20 + 25 * step)) < 9
            here = round(frame / 20 * RATE)
            part = samples[max(here - 800, 0) : here + 800]
            assert np.sqrt((part**2).mean() * 2) == pytest.approx(0.05 * (1 + step), rel=0.15)
    assert len(starts) > 4


def test_clips_depend_on_seed_and_index_and_groups_last_equally_long(tmp_path):
    told(tmp_path)
    told(tmp_path, 3.0, "b.mp4")
    rows = records(tmp_path, {"path": "a.mp4"}, {"path": "b.mp4"})
    one, again, other = alone(rows, group=4), alone(rows, group=4), alone(rows, group=4, seed=1)
    lengths = [len(heard(one[index])) for index in range(12)]
    assert all(len(set(lengths[at : at + 4])) == 1 for at in (0, 4, 8)) and len(set(lengths)) > 1
    backwards = [again[index] for index in reversed(range(12))][::-1]  # what was drawn before changes nothing
    for index in range(12):
        first, second = one[index], backwards[index]
        assert (first.record, first.start) == (second.record, second.start)
        assert np.array_equal(heard(first), heard(second))
    assert [one[i].start for i in range(4)] != [other[i].start for i in range(4)]
    assert {item.record.path.name for item in backwards} == {"a.mp4", "b.mp4"}
    with pytest.raises(IndexError):
        opened(rows, 3, heldout=0.0)[3]


def test_a_rate_that_varies_is_read_by_its_times_and_large_pictures_are_shrunk(tmp_path):
    path = uneven(tmp_path / "a.mp4", [0, 100, 1500, 1600, 3000])  # frame i has the level 8 i
    extent = source.timeline.measure(path)
    known = source.SoundFile(extent, extent.duration, RATE, (32, 32))
    # Nothing begins in the first half of this second.
    seen = source.pictures(path, known, 1.0, 1.0, 10, 256)
    assert np.abs(seen.mean((1, 2, 3)) - np.repeat([8, 16, 24], [5, 1, 4])).max() < 5
    small = source.pictures(path, known, 0.0, 0.5, 10, 16)
    assert small.shape == (5, 16, 16, 3)


def test_a_sound_without_pictures_is_heard_but_not_seen(tmp_path):
    write_sound(tmp_path / "a.wav", [tone(3, 44100)], 44100)
    item = alone(records(tmp_path, {"path": "a.wav"}))[0]
    assert item.sound().rate == 44100 and np.abs(heard(item)).max() == pytest.approx(0.3, abs=0.01)
    with pytest.raises(HyError, match="no picture stream"):
        item.video()


# -- records ---------------------------------------------------------------------------------------------


def test_what_the_stages_reject_is_not_trained_on(tmp_path):
    good, mute = told(tmp_path), clip(tmp_path / "b.mp4")
    found = [ClipRecord.from_json({"path": str(path), "sound_caption": "hum"}) for path in (good, mute)]
    rows = [one.to_json() for one in run_stages([Presence(), SoundCaption()], found)]
    assert [bool(row.get("rejected")) for row in rows] == [False, True]
    (kept,) = alone(records(tmp_path, *rows)).records
    assert kept.file == good and caption_of(kept) == "hum."
    with pytest.raises(UsageError, match="has no clips: all 1 are rejected"):
        alone(records(tmp_path, rows[1]))


def test_captions_of_records():
    def said(**row):
        return caption_of(ClipRecord.from_json({"path": "a.mp4", **row}))

    both = {"sound_caption": "rain", "music_caption": "slow piano", "caption": "a roof"}
    assert said(audio_caption={"text": "rain."}, **both) == "rain."
    assert said(audio_caption="wind", **both) == "wind."
    assert said(**both) == "Sound: rain. Music: slow piano."
    assert said(caption="a roof") == "a roof." and said() == ""


def test_files_are_on_one_side_with_all_their_spans(tmp_path):
    rows = [{"path": f"{i}.mp4", "span": [at, at + 2]} for i in range(40) for at in (0, 2)]
    path = records(tmp_path, *rows)
    train, held = (opened(path, split=split, heldout=0.2) for split in ("train", "heldout"))
    names = [{one.path.name for one in side.records} for side in (train, held)]
    assert len(names[0]) + len(names[1]) == 40 and 2 < len(names[1]) < 16 and not names[0] & names[1]
    assert len(train.records) + len(held.records) == 80
    again = opened(records(tmp_path, *rows[::-1]), seed=5, split="heldout", heldout=0.2)
    assert {one.path.name for one in again.records} == names[1]
    single = records(tmp_path, rows[0])
    with pytest.raises(UsageError, match="none of 1 files") as error:
        opened(single, split="heldout", heldout=1e-6)
    assert "heldout = 0" in error.value.hint
    assert opened(single, split="heldout", heldout=0.0).records


def test_wrong_records_and_options_are_one_line(tmp_path):
    path = tmp_path / "clips.jsonl"
    for text, match in (
        ('{"path": "a.mp4"}\n{"path": "b.m', "line 2 is not JSON"),
        ("[1]\n", "line 1: .1. is not a record"),
        ('{"span": [0, 1]}\n', "line 1: a record without a path"),
        ('\n{"path": "a", "span": [3, 1]}\n', "line 2: .*span 3 to 1"),
        ("", "it is empty"),
        ("[" * 100000, "line 1 is not JSON"),
    ):
        path.write_text(text)
        with pytest.raises(UsageError, match=match):
            read_manifest(path, check_files=False)
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(UsageError, match="UTF-8"):
        read_manifest(path)
    with pytest.raises(MissingError, match="no such manifest"):
        opened(tmp_path / "gone.jsonl")
    with pytest.raises(UsageError, match="no records are given"):
        opened("")
    path.write_text('{"path": "a.mp4"}\n')
    for wrong in (
        {"seconds": 3},
        {"seconds": [4, 1]},
        {"seconds": ["a", "b"]},
        {"fps": 0},
        {"side": 3},
        {"heldout": 1},
    ):
        with pytest.raises(UsageError, match="sound-clips|heldout"):
            opened(path, **wrong)


def test_each_file_that_cannot_be_used_is_one_line_and_the_rest_is_trained_from(tmp_path, caplog):
    told(tmp_path)
    (tmp_path / "text.mp4").write_text("no clip" * 99)
    clip(tmp_path / "mute.mp4")
    not_numbers(tmp_path / "nan.mkv")
    names = ["text.mp4", "gone.mp4", "mute.mp4", "nan.mkv", "a.mp4"]
    found = alone(records(tmp_path, *[{"path": name} for name in names]), seconds=[1.9, 2.0])
    with caplog.at_level(logging.WARNING):
        for index in range(40):
            assert found[index].record.path.name == "a.mp4"
    lines = [line.getMessage() for line in caplog.records if line.name.startswith("hy_audio")]
    assert len(lines) == 4 and all(line.startswith("left out: ") and "\n" not in line for line in lines)
    assert all(sum(name in line for line in lines) == 1 for name in names[:4])
    broken = alone(records(tmp_path, {"path": "text.mp4"}, {"path": "mute.mp4"}))
    with pytest.raises(HyError, match="2 records, 2 files left out"):
        broken[0]
    with pytest.raises(HyError, match=r"no clip lasts 9\.\d+ s"):
        alone(records(tmp_path, {"path": "a.mp4"}), seconds=[9.0, 10.0])[0]


def test_a_file_that_breaks_off_is_used_up_to_there(tmp_path):
    whole = clip(tmp_path / "whole.mp4", 200, 25, tone(8)).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 6 // 10])
    most = source.examine(tmp_path / "cut.mp4").seconds
    found = alone(records(tmp_path, {"path": "cut.mp4"}), seconds=[0.5, 0.5])
    assert 2 < most < 7
    for index in range(10):
        item = found[index]
        assert item.start + 0.5 <= most + 1e-6 and len(item.video()) == 10
        assert item.start > most - 1.5 or np.abs(heard(item)).max() > 0.05


# -- training --------------------------------------------------------------------------------------------


# A share that holds some of the four files out and not all.
HELDOUT = next(
    share / 100
    for share in range(1, 100)
    if 0 < sum(is_heldout(f"{name}.mp4", share / 100) for name in "abcd") < 3
)


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder with four clips and their records, made by the stages."""
    folder = tmp_path_factory.mktemp("own")
    paths = [told(folder, 2.5, f"{name}.mp4") for name in "abcd"]
    rows = [{"path": path.name, "sound_caption": "a tone"} for path in paths]
    found = run_stages([Presence(), SoundCaption()], [ClipRecord.from_json(row, folder) for row in rows])
    return records(folder, *[one.to_json() for one in found])


def sets(path: Path, **more) -> list[str]:
    """The overrides that turn a recipe that ships to one's own clips, and make it tiny."""
    table = f'{{ records = "{path}", seconds = [0.6, 0.9], heldout = {HELDOUT} }}'
    plain = {"steps": 2, "batch": 2, "eval_every": 0, "optim.warmup": 0, "data.batches": 0, **more}
    return [
        "data.source=sound-clips",
        f"data.sources={{ sound-clips = {table} }}",
        *(f"{k}={json.dumps(v)}" for k, v in plain.items()),
    ]


def test_the_objectives_learn_from_own_clips(own, tmp_path):
    from hy_audio.training.mel_vae import MelVAEObjective
    from hy_audio.training.vocoder import VocoderObjective
    from hy_train import recipe

    tiny = sets(own, **{"model.width": 16, "data.seconds": 0.512})
    vae = MelVAEObjective(recipe.load("pocket-mel-vae", tiny), tmp_path)
    assert isinstance(vae.clips, SoundClips) and len(vae.clips.records) + len(vae.heldout.records) == 4
    batch = vae.batch(0)
    assert batch.shape == (2, 8192) and float(batch.abs().amax(1).min()) > 0.04
    vocoder = VocoderObjective(
        recipe.load("pocket-vocoder", sets(own, **{"model.channels": 16, "data.seconds": 0.128})), tmp_path
    )
    assert vocoder.batch(1).real.shape == (2, 2048)


@pytest.mark.slow
def test_hy_train_makes_a_whole_model_from_own_clips(own, tmp_path):
    """The three recipes, from the command line, and the model that they are makes sound."""
    runs = {
        "pocket-mel-vae": {"model.width": 16, "data.seconds": 0.512},
        "pocket-vocoder": {"model.channels": 16, "data.seconds": 0.128},
        "pocket-audio-dit": {
            "model.width": 32, "model.heads": 2, "model.depth_triple": 1, "model.depth_single": 1,
            "data.vae": str(tmp_path / "pocket-mel-vae/export"),
            "data.vocoder": str(tmp_path / "pocket-vocoder/export"),
        },
    }  # fmt: skip
    for name, more in runs.items():
        command = [
            sys.executable,
            "-m",
            "hy_core",
            "train",
            name,
            "-q",
            "--json",
            "--out",
            str(tmp_path / name),
        ]
        flags = [part for one in sets(own, **more) for part in ("--set", one)]
        done = subprocess.run(command + flags, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout.splitlines()[-1])["step"] == 2
    from hy_audio.models import load_generator
    from hy_audio.soundtrack import generate_soundtrack
    from hy_audio.soundtrack_options import SoundtrackOptions

    generator = load_generator(tmp_path / "pocket-audio-dit/export", "a tone", steps=2)
    assert generate_soundtrack(pictures(12), 12.0, generator, SoundtrackOptions(lufs=None)).samples.shape == (
        1,
        16000,
    )
