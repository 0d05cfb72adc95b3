"""Data sets of other tools as records, and sets as files; both ways round."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from data.test_decide import recipe
from hy_core.data import read_manifest
from hy_core.errors import HyError, MissingError, UsageError
from hy_core.media import read, read_picture, write
from hy_core.request import Sound
from hy_data.formats.export import export_set
from hy_data.formats.read import read_dataset
from hy_data.select.decide import decide
from hy_data.table import write_scores


def touch(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def found(source: Path, tmp_path: Path):
    """Names and captions of the records of a data set."""
    imported = read_dataset(source, tmp_path / "unpacked")
    return [(record.path.name, *record.captions) for record in imported.records], imported


# -- import ------------------------------------------------------------------------------------------------


def test_a_folder_with_captions_beside_the_clips(tmp_path):
    touch(tmp_path / "d/b.mp4")
    touch(tmp_path / "d/b.txt", "rain\n")
    touch(tmp_path / "d/deep/A.MOV")
    touch(tmp_path / "d/.hidden/c.mp4")
    touch(tmp_path / "d/notes.txt", "no clip")
    rows, imported = found(tmp_path / "d", tmp_path)
    assert rows == [("b.mp4", "rain"), ("A.MOV",)]
    assert imported.notes == ("1 of 2 clips have no caption",)


def test_captions_of_a_folder_in_one_file(tmp_path):
    touch(tmp_path / "d/a.mp4")
    touch(tmp_path / "d/b.png")
    touch(tmp_path / "d/captions.json", json.dumps({"a.mp4": ["one", "two"], "b.png": "three"}))
    assert found(tmp_path / "d", tmp_path)[0] == [("a.mp4", "one", "two"), ("b.png", "three")]
    touch(tmp_path / "e/a.mp4")
    touch(tmp_path / "e/captions.json", "[1]")
    with pytest.raises(UsageError, match="does not map names to captions"):
        read_dataset(tmp_path / "e", tmp_path)


def test_musubi_tuner(tmp_path):
    touch(tmp_path / "v/a.mp4")
    touch(tmp_path / "v/a.caption", "a car")
    touch(tmp_path / "v/a.png")  # no video
    touch(tmp_path / "v/deep/x.mp4")  # musubi doesn't look into folders
    touch(tmp_path / "i/p.png")
    touch(tmp_path / "i/p.txt", "a tree")
    touch(tmp_path / "v/l.jsonl", json.dumps({"video_path": str(tmp_path / "v/a.mp4"), "caption": "again"}))
    config = touch(
        tmp_path / "musubi.toml",
        """
        [general]
        resolution = [960, 544]
        caption_extension = ".caption"
        [[datasets]]
        video_directory = "v"
        target_frames = [1, 25, 45]
        frame_extraction = "head"
        [[datasets]]
        image_directory = "i"
        caption_extension = ".txt"
        [[datasets]]
        video_jsonl_file = "v/l.jsonl"
        """,
    )
    rows, imported = found(config, tmp_path)
    assert rows == [("a.mp4", "a car"), ("p.png", "a tree"), ("a.mp4", "again")]
    assert imported.layout == "musubi-tuner"
    assert imported.notes == (
        "datasets 1: target_frames = [1, 25, 45], frame_extraction = head has no effect here; sets choose frames",
    )


def test_diffusion_pipe(tmp_path):
    touch(tmp_path / "v/a.mp4")
    touch(tmp_path / "v/a.txt", "a car")
    touch(tmp_path / "w/b.jpg")
    text = f"frame_buckets = [1, 33]\n[[directory]]\npath = '{tmp_path}/v'\n[[directory]]\npath = 'w'\n"
    rows, imported = found(touch(tmp_path / "dataset.toml", text), tmp_path)
    assert rows == [("a.mp4", "a car"), ("b.jpg",)] and imported.layout == "diffusion-pipe"
    assert "frame_buckets = [1, 33] has no effect" in imported.notes[0]


def test_finetrainers(tmp_path):
    touch(tmp_path / "d/videos/0.mp4")
    touch(tmp_path / "d/videos/1.mp4")
    touch(tmp_path / "d/videos.txt", "videos/0.mp4\nvideos/1.mp4\n")
    touch(tmp_path / "d/prompt.txt", "first\n\n")
    assert found(tmp_path / "d", tmp_path)[0] == [("0.mp4", "first"), ("1.mp4",)]
    touch(tmp_path / "d/prompt.txt", "first\nsecond\nthird\n")
    with pytest.raises(UsageError, match=r"videos.txt has 2 clips, .*prompt.txt 3 captions"):
        read_dataset(tmp_path / "d", tmp_path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "l.jsonl",
            '{"file_name": "a.mp4", "text": "one", "span": [0, 1], "score": 2}\n\n{"video": "b.mp4"}\n',
        ),
        ("l.csv", 'video_path,caption,span,score\na.mp4,one,"[0, 1]",2\nb.mp4,,,\n'),
        (
            "l.json",
            '{"data": [{"path": "a.mp4", "prompt": "one", "span": [0, 1], "score": 2}, {"path": "b.mp4"}]}',
        ),
    ],
)
def test_lists(tmp_path, name, text):
    touch(tmp_path / "a.mp4")
    touch(tmp_path / "b.mp4")
    rows, imported = found(touch(tmp_path / name, text), tmp_path)
    assert rows == [("a.mp4", "one"), ("b.mp4",)]
    assert imported.records[0].span == (0, 1) and int(imported.records[0].results["score"]) == 2


def test_what_is_missing_or_wrong_is_named(tmp_path):
    touch(tmp_path / "a.mp4")
    listed = touch(tmp_path / "l.jsonl", '{"path": "a.mp4"}\n{"path": "gone.mp4"}\n')
    assert found(listed, tmp_path)[1].notes[0].startswith("1 listed files are not there, the first: ")
    for text, message in [
        ('{"path": "a.mp4"}\n{"x": 1}', "line 2 has no path"),
        ("nonsense", "line 1 is not JSON"),
        ("[1]", "line 1 is not an object"),
        ('{"path": "a.mp4", "span": [2, 1]}', "line 1: a.mp4: the span"),
    ]:
        with pytest.raises(UsageError, match=message):
            read_dataset(touch(tmp_path / "w.jsonl", text), tmp_path)
    with pytest.raises(HyError, match="has no clips"):
        read_dataset(touch(tmp_path / "g.jsonl", '{"path": "gone.mp4"}'), tmp_path)
    with pytest.raises(UsageError, match="neither"):
        read_dataset(touch(tmp_path / "x.toml", "a = 1"), tmp_path)
    with pytest.raises(UsageError, match=r"there is no nowhere"):
        read_dataset(touch(tmp_path / "y.toml", '[[directory]]\npath = "nowhere"'), tmp_path)
    with pytest.raises(UsageError, match="a data set is"):
        read_dataset(touch(tmp_path / "z.xls"), tmp_path)
    with pytest.raises(MissingError):
        read_dataset(tmp_path / "none", tmp_path)


def add(tar: tarfile.TarFile, name: str, data: bytes, kind: bytes = tarfile.REGTYPE, link: str = "") -> None:
    member = tarfile.TarInfo(name)
    member.size, member.type, member.linkname = len(data), kind, link
    tar.addfile(member, io.BytesIO(data))


def test_members_of_a_shard_cannot_leave_the_folder(tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        add(tar, "../../../etc/evil.mp4", b"one")
        add(tar, "../../../etc/evil.txt", "köpek".encode())
        add(tar, "/abs.mp4", b"two")
        add(tar, "/abs.json", json.dumps({"caption": ["a", "b"], "fps": 3, "path": "/etc/passwd"}).encode())
        add(tar, "link.mp4", b"", tarfile.SYMTYPE, "/etc/passwd")
        add(tar, "fifo.mp4", b"", tarfile.FIFOTYPE)
        add(tar, "alone.txt", b"no clip")
        add(tar, "unknown.exe", b"x")
    imported = read_dataset(tmp_path / "s.tar", tmp_path / "u")
    assert [record.captions for record in imported.records] == [("köpek",), ("a", "b")]
    assert [record.path.read_bytes() for record in imported.records] == [b"one", b"two"]
    assert {record.path.parent for record in imported.records} == {tmp_path / "u"}
    assert imported.records[1].results == {"fps": 3}
    assert len(list((tmp_path / "u").iterdir())) == 2
    assert imported.notes == ("2 samples have no clip",)
    (tmp_path / "bad.tar").write_bytes((tmp_path / "s.tar").read_bytes()[:700])
    with pytest.raises(UsageError, match=r"can't be read as a tar file"):
        read_dataset(tmp_path / "bad.tar", tmp_path / "u")


# -- export ------------------------------------------------------------------------------------------------


def clip(seed: int, frames: int = 20) -> np.ndarray:
    """A clip whose frame n has the brightness 10 n, with a bar that shows its sides."""
    video = np.zeros((frames, 48, 64, 3), np.uint8)
    video += (np.arange(frames) * 10)[:, None, None, None].astype(np.uint8)
    video[:, :, :8] = (255, 40 * seed, 0)
    return video


@pytest.fixture(scope="module")
def decided(tmp_path_factory):
    """Three clips of two files with hostile names, and one whose file is broken."""
    folder = tmp_path_factory.mktemp("export")
    first, second = folder / "raw" / "a'\n\"; rm -rf ~.mp4", folder / "raw" / os.fsdecode(b"b\xff.mp4")
    tone = np.sin(np.arange(16000 * 2) / 20)[None].astype(np.float32)
    write(first, clip(1), 10.0, Sound(tone, 16000))
    write(second, clip(2), 10.0)
    touch(folder / "raw" / "broken.mp4", "nonsense")
    base = {"width": 64, "height": 48, "fps": 10.0, "status": "ok", "blur": 0.5}
    rows = [
        {
            "id": "aa",
            "path": first,
            "start": 0.5,
            "stop": 1.2,
            "frames": 7,
            "captions": ["one\ntwo", "x"],
            **base,
        },
        {"id": "bb", "path": first, "start": 1.2, "stop": 2.0, "frames": 8, **base},
        {
            "id": "../cc",
            "path": second,
            "start": 0.0,
            "stop": 2.0,
            "frames": 20,
            "crop": [8, 0, 64, 40],
            **base,
        },
        {"id": "dd", "path": folder / "raw/broken.mp4", "start": 0.0, "stop": 2.0, "frames": 20, **base},
    ]
    write_scores(rows, folder / "scores.parquet")
    picture = {"kind": "image", "height": 32, "width": 32, "pictures": 2}
    decide(folder, recipe(**{"v": {"height": 32, "width": 32}, "p": picture}))
    return folder


def brightness(frames: np.ndarray) -> list[int]:
    return [round(float(frame[:, 20:].mean()) / 10) for frame in frames]


def test_a_folder_of_clips_has_exactly_their_frames_sound_and_captions(decided, tmp_path):
    done = export_set(decided, "v", "folder", tmp_path)
    assert done.clips == 3 and list(done.failed) == ["dd"]
    first, second = read(tmp_path / "aa.mp4"), read(tmp_path / "bb.mp4")
    assert brightness(first.frames) == [5, 6, 7, 8, 9, 10, 11]  # not one frame of the next clip
    assert brightness(second.frames) == [12, 13, 14, 15, 16, 17, 18, 19]
    assert first.sound is not None and first.sound.samples.shape[1] == pytest.approx(0.7 * 16000, abs=1100)
    cropped = read(next(path for path in done.files if path.stem not in ("aa", "bb")))
    assert (
        cropped.frames.shape == (20, 40, 56, 3) and cropped.frames[0, :, 0].max() < 40
    )  # the bar is cut off
    assert (tmp_path / "aa.txt").read_text() == "one two\n" and not (tmp_path / "bb.txt").exists()
    rows = [json.loads(line) for line in (tmp_path / "metadata.jsonl").read_text().splitlines()]
    assert [row["frames"] for row in rows if row["id"] in ("aa", "bb")] == [7, 8]
    failed = json.loads((tmp_path / "v-failed.jsonl").read_text())
    assert failed["id"] == "dd" and "broken.mp4" in failed["reason"]
    names = {path.name for path in tmp_path.iterdir()}
    assert all(name.isascii() and "/" not in name for name in names) and len(names) == 3 + 1 + 2


def test_a_folder_comes_back_as_records(decided, tmp_path):
    export_set(decided, "v", "folder", tmp_path)
    imported = read_dataset(tmp_path, tmp_path / "u")
    assert {record.path.name: record.captions for record in imported.records}["aa.mp4"] == ("one two",)
    assert len(imported.records) == 3 and imported.records[0].results["blur"] == 0.5


def test_shards_are_cut_by_bytes_are_repeatable_and_come_back(decided, tmp_path):
    one = export_set(decided, "v", "webdataset", tmp_path / "one", shard_bytes=1)
    again = export_set(decided, "v", "webdataset", tmp_path / "two", shard_bytes=1)
    assert [path.name for path in one.files] == [
        "v-000000.tar",
        "v-000001.tar",
        "v-000002.tar",
        "v-000003.tar",
    ]
    assert [p.read_bytes() for p in one.files] == [p.read_bytes() for p in again.files]
    with tarfile.open(one.files[1]) as tar:
        members = {member.name: member for member in tar.getmembers()}
        assert list(members) == ["aa.json", "aa.mp4", "aa.txt"] and {m.mtime for m in members.values()} == {0}
        facts = json.load(tar.extractfile("aa.json"))
    assert facts["frames"] == 7 and facts["captions"] == ["one\ntwo", "x"] and facts["start"] == 0.5
    together = export_set(decided, "v", "webdataset", tmp_path / "one")
    assert [path.name for path in together.files] == ["v-000000.tar"] and together.clips == 3
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == [
        "v-000000.json",
        "v-000000.tar",
        "v-failed.jsonl",
    ]
    imported = read_dataset(tmp_path / "one", tmp_path / "u")
    assert len(imported.records) == 3 and ("one\ntwo", "x") in [
        record.captions for record in imported.records
    ]
    clips = [read(record.path) for record in imported.records]
    assert sorted(len(one.frames) for one in clips) == [7, 8, 20]


def test_a_shard_that_is_there_is_not_written_again(decided, tmp_path, monkeypatch):
    first = export_set(decided, "v", "webdataset", tmp_path, shard_bytes=1)
    monkeypatch.setattr("hy_data.formats.export.cut", lambda *_: pytest.fail("cut again"))
    assert export_set(decided, "v", "webdataset", tmp_path, shard_bytes=1) == first


def test_pictures_of_clips(decided, tmp_path):
    done = export_set(decided, "p", "folder", tmp_path)
    assert done.clips == 6 and sorted(done.failed) == ["dd-0", "dd-1"]
    image = read_picture(tmp_path / "aa-1.png")
    assert image.size == (64, 48) and brightness(np.asarray(image)[None]) == [10]


def test_a_list_names_parts_of_the_raw_files(decided, tmp_path):
    done = export_set(decided, "v", "jsonl", tmp_path)
    records = read_manifest(done.files[0])
    assert len(records) == 4 and records[1].span == (0.5, 1.2) and records[1].captions == ("one\ntwo", "x")
    assert records[0].crop == (8, 0, 64, 40) and records[0].path.is_file()
    with pytest.raises(UsageError, match="frames of clips"):
        export_set(decided, "p", "jsonl", tmp_path)


def test_an_unknown_set_is_named(decided, tmp_path):
    with pytest.raises(MissingError, match="no set 'w'"):
        export_set(decided, "w", "folder", tmp_path)
