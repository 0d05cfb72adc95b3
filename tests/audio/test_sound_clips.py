"""The dataset `sound-clips`: windows of your own files, by the records of the stages, and training on them."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
from audio.clips import clip, not_numbers, pictures, tone, uneven
from hy_audio.sound_files import write_sound
from hy_audio.stages import Presence, SoundCaption, run
from hy_audio.training import clips as source
from hy_audio.training.clips import SoundClips, caption_of, read_records
from hy_core import media
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


def alone(path: Path, **more) -> SoundClips:
    return SoundClips(1 << 40, records=path, heldout=0, **{"seconds": [1.0, 2.0], "fps": 20, **more})


# -- what an item is -------------------------------------------------------------------------------------


def test_pictures_and_sound_of_a_window_are_of_the_same_moment(tmp_path):
    told(tmp_path)
    found = alone(
        records(tmp_path, {"path": "a.mp4", "span": [0.5, 3.5], "audio_caption": {"text": "a tone."}})
    )
    starts = set()
    for index in range(12):
        item = found[index]
        seen, heard = item["pixels"](), item["sound"]
        assert item["rate"] == RATE and item["caption"] == "a tone." and seen.dtype == np.uint8
        assert len(seen) == round(len(heard) / RATE * 20) and seen.shape[1:] == (48, 64, 3)
        assert 0.5 <= item["start"] <= 3.5 - len(heard) / RATE + 1e-6
        starts.add(round(item["start"], 1))
        for frame in range(0, len(seen), 5):
            moment = item["start"] + frame / 20
            if min(moment % 0.5, 0.5 - moment % 0.5) < 0.12:
                continue  # too near to a step
            step = int(moment * 2)
            assert abs(float(seen[frame].mean()) - (20 + 25 * step)) < 9
            here = round(frame / 20 * RATE)
            part = heard[max(here - 800, 0) : here + 800]
            assert np.sqrt((part**2).mean() * 2) == pytest.approx(0.05 * (1 + step), rel=0.15)
    assert len(starts) > 4


def test_items_depend_on_seed_and_index_and_blocks_last_equally_long(tmp_path):
    told(tmp_path)
    told(tmp_path, 3.0, "b.mp4")
    rows = records(tmp_path, {"path": "a.mp4"}, {"path": "b.mp4"})
    one, again, other = alone(rows, block=4), alone(rows, block=4), alone(rows, block=4, seed=1)
    lengths = [len(one[index]["sound"]) for index in range(12)]
    assert all(len(set(lengths[at : at + 4])) == 1 for at in (0, 4, 8)) and len(set(lengths)) > 1
    backwards = [again[index] for index in reversed(range(12))][::-1]  # what was drawn before changes nothing
    for index in range(12):
        first, second = one[index], backwards[index]
        assert (first["path"], first["start"]) == (second["path"], second["start"])
        assert np.array_equal(first["sound"], second["sound"])
    assert [one[i]["start"] for i in range(4)] != [other[i]["start"] for i in range(4)]
    assert {Path(item["path"]).name for item in backwards} == {"a.mp4", "b.mp4"}
    with pytest.raises(IndexError):
        SoundClips(3, records=rows, heldout=0)[3]


def test_a_rate_that_varies_is_read_by_its_times_and_large_pictures_are_shrunk(tmp_path):
    path = uneven(tmp_path / "a.mp4", [0, 100, 1500, 1600, 3000])  # frame i has the level 8 i
    extent = source.timeline.measure(path)
    known = source.Source(extent, extent.duration, RATE, (32, 32))
    # Nothing begins in the first half of this second.
    seen = source.pictures(path, known, 1.0, 1.0, 10, 256)
    assert np.abs(seen.mean((1, 2, 3)) - np.repeat([8, 16, 24], [5, 1, 4])).max() < 5
    small = source.pictures(path, known, 0.0, 0.5, 10, 16)
    assert small.shape == (5, 16, 16, 3)


def test_a_sound_without_pictures_is_heard_but_not_seen(tmp_path):
    write_sound(tmp_path / "a.wav", [tone(3, 44100)], 44100)
    item = alone(records(tmp_path, {"path": "a.wav"}))[0]
    assert item["rate"] == 44100 and np.abs(item["sound"]).max() == pytest.approx(0.3, abs=0.01)
    with pytest.raises(HyError, match="no picture stream"):
        item["pixels"]()


# -- records ---------------------------------------------------------------------------------------------


def test_what_the_stages_reject_is_not_learned_from(tmp_path):
    good, mute = told(tmp_path), clip(tmp_path / "b.mp4")
    rows = list(
        run([Presence(), SoundCaption()], [{"path": str(p), "sound_caption": "hum"} for p in (good, mute)])
    )
    assert [bool(row.get("rejected")) for row in rows] == [False, True]
    (kept,) = read_records(records(tmp_path, *rows))
    assert kept.path == good and kept.caption == "hum."
    with pytest.raises(UsageError, match="no record to learn from .1 are rejected"):
        read_records(records(tmp_path, rows[1]))


def test_captions_of_records():
    both = {"sound_caption": "rain", "music_caption": "slow piano", "caption": "a roof"}
    assert caption_of({"audio_caption": {"text": "rain."}, **both}) == "rain."
    assert caption_of({"audio_caption": "wind", **both}) == "wind."
    assert caption_of(both) == "Sound: rain. Music: slow piano."
    assert caption_of({"caption": "a roof"}) == "a roof." and caption_of({"caption": 3}) == ""


def test_files_are_on_one_side_with_all_their_spans(tmp_path):
    rows = [{"path": f"{i}.mp4", "span": [at, at + 2]} for i in range(40) for at in (0, 2)]
    path = records(tmp_path, *rows)
    train, held = (SoundClips(9, records=path, split=split, heldout=0.1) for split in ("train", "heldout"))
    names = [{one.name for one in side.records} for side in (train, held)]
    assert len(names[0]) == 36 and len(names[1]) == 4 and not names[0] & names[1]
    assert len(train.records) == 72 and len(held.records) == 8
    again = SoundClips(9, records=records(tmp_path, *rows[::-1]), seed=5, split="heldout", heldout=0.1)
    assert {one.name for one in again.records} == names[1]
    single = records(tmp_path, rows[0])
    with pytest.raises(UsageError, match="heldout = 0|left to learn"):
        SoundClips(9, records=single)
    assert SoundClips(9, records=single, split="heldout", heldout=0).records


def test_wrong_records_and_numbers_are_one_line(tmp_path):
    path = tmp_path / "clips.jsonl"
    for text, match in (
        ('{"path": "a.mp4"}\n{"path": "b.m', "line 2 is not JSON"),
        ("[1]\n", "line 1 is no record"),
        ('{"span": [0, 1]}\n', "line 1: a record without a path"),
        ('\n{"path": "a", "span": [3, 1]}\n', "line 2: .*span 3 to 1"),
        ("", "no record to learn from"),
        ("[" * 100000, "line 1 is not JSON"),
    ):
        path.write_text(text)
        with pytest.raises(UsageError, match=match):
            read_records(path)
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(UsageError, match="UTF-8"):
        read_records(path)
    with pytest.raises(MissingError, match="no records in"):
        SoundClips(1, records=tmp_path / "gone.jsonl")
    with pytest.raises(UsageError, match="records must be given"):
        SoundClips(1)
    path.write_text('{"path": "a.mp4"}\n')
    for wrong in (
        {"seconds": 3},
        {"seconds": [4, 1]},
        {"seconds": ["a", "b"]},
        {"fps": 0},
        {"side": 3},
        {"heldout": 1},
    ):
        with pytest.raises(UsageError, match="sound-clips"):
            SoundClips(1, records=path, **wrong)


def test_each_file_that_cannot_be_used_is_one_line_and_the_rest_is_learned_from(tmp_path, caplog):
    told(tmp_path)
    (tmp_path / "text.mp4").write_text("no clip" * 99)
    clip(tmp_path / "mute.mp4")
    not_numbers(tmp_path / "nan.mkv")
    names = ["text.mp4", "gone.mp4", "mute.mp4", "nan.mkv", "a.mp4"]
    found = alone(records(tmp_path, *[{"path": name} for name in names]), seconds=[1.9, 2.0])
    with caplog.at_level(logging.WARNING):
        for index in range(40):
            assert Path(found[index]["path"]).name == "a.mp4"
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
        assert item["start"] + 0.5 <= most + 1e-6 and len(item["pixels"]()) == 10
        assert item["start"] > most - 1.5 or np.abs(item["sound"]).max() > 0.05


# -- training --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder with four clips and their records, made by the stages."""
    folder = tmp_path_factory.mktemp("own")
    paths = [told(folder, 2.5, f"{name}.mp4") for name in "abcd"]
    rows = run(
        [Presence(), SoundCaption()], [{"path": path.name, "sound_caption": "a tone"} for path in paths]
    )
    with chdir(folder):  # the stages take relative paths from there
        return records(folder, *rows)


def sets(path: Path, **more) -> list[str]:
    """The overrides that turn a recipe that ships to one's own clips, and make it tiny."""
    clips = f'{{ records = "{path}", seconds = [0.6, 0.9], heldout = 0.25 }}'
    plain = {"steps": 2, "batch": 2, "eval_every": 0, "optim.warmup": 0, "data.batches": 0, **more}
    return [
        "data.source=sound-clips",
        f"data.clips={clips}",
        *(f"{k}={json.dumps(v)}" for k, v in plain.items()),
    ]


def test_the_objectives_learn_from_own_clips(own, tmp_path):
    from hy_audio.training.mel_vae import MelVAEObjective
    from hy_audio.training.vocoder import VocoderObjective
    from hy_train import recipe

    tiny = sets(own, **{"model.width": 16, "data.seconds": 0.512})
    vae = MelVAEObjective(recipe.load("pocket-mel-vae", tiny), tmp_path)
    assert isinstance(vae.clips, SoundClips) and len(vae.clips.records) == 3 and len(vae.heldout.records) == 1
    batch = vae.batch(0)
    assert batch.shape == (2, 8192) and float(batch.abs().amax(1).min()) > 0.04
    vocoder = VocoderObjective(
        recipe.load("pocket-vocoder", sets(own, **{"model.channels": 16, "data.seconds": 0.128})), tmp_path
    )
    assert vocoder.batch(1)["real"].shape == (2, 2048)


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
