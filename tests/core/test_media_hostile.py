"""Hostile files of media are refused in one line, in little time and memory; nothing is run or connected to."""

from __future__ import annotations

import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from core.timed_clips import greys
from hy_core import media
from hy_core.errors import HyError, UsageError
from hy_core.media import timeline
from PIL import Image

MEASURE = """
import resource, sys
from hy_core import media
from hy_core.errors import HyError
from hy_core.media import timeline
media.write("warm.mp4", __import__("numpy").zeros((2, 32, 32, 3), "uint8"), 8)
media.read("warm.mp4")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for call in (media.read_comment, media.probe, timeline.measure, media.read, media.read_sound, media.read_picture):
    try:
        call(sys.argv[1])
        print("ok", end=" ")
    except HyError as error:
        assert "\\n" not in error.message and len(error.message) < 300
        print("refused", end=" ")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def costs(path: Path) -> tuple[list[str], int]:
    """What every reader says of a file, and the memory in MB that they take; fails after 20 s or a traceback."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)],
        cwd=path.parent,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert not done.stderr.startswith("Traceback") and done.returncode == 0, done.stderr[-500:]
    *said, megabytes = done.stdout.split()
    return said, int(megabytes)


def gif_of(side: int, frames: int) -> bytes:
    """A GIF whose canvas is `side` pixels a side, and whose frames are one pixel each."""
    data = b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + bytes(6)
    one = b"\x21\xf9\x04\x04\x01\x00\x00\x00" + b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0)
    return data + (one + b"\x02\x02\x44\x01\x00") * frames + b";"


def png_of(width: int, height: int) -> bytes:
    """A whole PNG of one colour, small as a file."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer, rows = zlib.compressobj(9), b""
    for _ in range(height):
        rows += packer.compress(bytes(width + 1))
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", rows + packer.flush())
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [9000, 60000])
def test_a_gif_of_a_huge_canvas_is_refused(tmp_path: Path, side: int) -> None:
    (tmp_path / "a.gif").write_bytes(gif_of(side, 400))
    said, megabytes = costs(tmp_path / "a.gif")
    assert said[3] == "refused" and megabytes < 400


@pytest.mark.parametrize("size", [(16000, 16000), (7000, 7000), (100_000, 10)])
def test_a_picture_of_too_many_pixels_is_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    (tmp_path / "a.png").write_bytes(png_of(*size))
    said, megabytes = costs(tmp_path / "a.png")
    assert set(said) == {"refused"} and megabytes < 400


def test_a_large_photograph_is_read_smaller(tmp_path: Path) -> None:
    Image.new("RGB", (9000, 6000), (200, 10, 10)).save(tmp_path / "a.jpg")
    assert media.read_picture(tmp_path / "a.jpg").size == (4500, 3000)
    with pytest.raises(HyError, match="20000x10; at most 16384"):
        Image.new("RGB", (20000, 10)).save(tmp_path / "b.jpg")
        media.read_picture(tmp_path / "b.jpg")


@pytest.mark.parametrize(("box", "at"), [(b"stts", 12), (b"stts", 8), (b"mdhd", 12)])
@pytest.mark.parametrize("value", [0, 0x7FFFFFFF, 0xFFFFFFFF])
def test_damaged_times_neither_hang_nor_fill_memory(tmp_path: Path, box: bytes, at: int, value: int) -> None:
    data = bytearray(media.write(tmp_path / "good.mp4", greys([50] * 17), 8).read_bytes())
    place = data.index(box) + 4 + at
    data[place : place + 4] = struct.pack(">I", value)
    (tmp_path / "a.mp4").write_bytes(data)
    started = time.monotonic()
    _, megabytes = costs(tmp_path / "a.mp4")
    assert megabytes < 400 and time.monotonic() - started < 15
    try:
        shown = sum(1 for _ in timeline.frames_at(tmp_path / "a.mp4", 8))
    except HyError:
        shown = 0
    assert shown < 17 * 3600 * 8


def test_a_codec_that_is_not_known_is_one_line(tmp_path: Path) -> None:
    data = media.write(tmp_path / "good.mp4", greys([50] * 5), 8).read_bytes()
    (tmp_path / "a.mp4").write_bytes(data.replace(b"avc1", b"zzzz"))
    for call in (media.probe, media.read, timeline.measure):
        with pytest.raises(HyError, match="unknown codec"):
            call(tmp_path / "a.mp4")


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.gif", "a.png", "a.jpg", "a.webp"])
def test_damaged_files_are_read_or_refused(tmp_path: Path, name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    still = name[2:] in ("png", "jpg", "webp")
    frames = rng.integers(0, 255, (1 if still else 9, 32, 32, 3), np.uint8)
    good = media.write(tmp_path / f"good{name[1:]}", frames, 8, comment="{}").read_bytes()
    for _ in range(25):
        data = bytearray(good)
        for place in rng.integers(0, len(data), rng.integers(1, 12)):
            data[place] = rng.integers(256)
        path = tmp_path / name
        path.write_bytes(data if rng.random() < 0.7 else data[: rng.integers(len(data))])
        for call in (
            media.probe,
            media.read_comment,
            lambda path: media.read(path, most=50),
            media.read_picture,
        ):
            try:
                call(path)
            except HyError as error:
                assert "\n" not in error.message


def test_no_other_program_is_run_for_a_picture(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(/tmp/x) (w) file\nshowpage\n%%EOF\n"
    )
    with pytest.raises(HyError, match="not a picture"):
        media.read_picture(tmp_path / "a.png")


@pytest.mark.parametrize(
    "name", ["tcp:127.0.0.1:9.mp4", "http:a.mp4", "concat:a.mp4", "pipe:1.mp4", "data:,a.webm"]
)
def test_names_are_files_never_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    media.write(name, greys([50] * 3), 8)
    assert Path(name).is_file() and len(media.read(name).frames) == 3
    with pytest.raises(HyError, match="no such file"):
        media.read("http://127.0.0.1:9/a.mp4")


def test_a_pipe_or_a_device_is_no_file(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "a.mp4")
    for path in (tmp_path / "a.mp4", Path("/dev/zero"), tmp_path):
        with pytest.raises(HyError):
            media.read(path)


@pytest.mark.parametrize("name", ["%999999999d.png", "%0999d.png", "a%012345d.jpg"])
def test_a_number_of_too_many_digits_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="at most 9 digits"):
        media.check_target(name, 17)


@pytest.mark.parametrize("name", ["50%/f-%03d.png", "100%%-%02d.png", "a%db.webp"])
def test_percent_signs_that_are_no_pattern_stay(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    media.check_target(path, 3)
    media.write(path, greys([10, 20, 30]), 8)
    wanted = media.frame_path(path, 2)
    assert wanted.is_file() and wanted.name == path.name.replace("%%", "%").replace("%03d", "002").replace(
        "%02d", "02"
    ).replace("%d", "2")


def test_what_a_format_cannot_hold_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="16383 pixels"):
        media.check_target(tmp_path / "a.webp", 1, size=(64, 16400))
    with pytest.raises(UsageError, match="100 frames a second"):
        media.check_target(tmp_path / "a.gif", 17, fps=240)
    media.check_target(tmp_path / "a.png", 1, size=(64, 16400))


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif", ".png"])
def test_the_same_frames_give_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (1 if suffix == ".png" else 5, 48, 48, 3), np.uint8)
    made = {media.write(tmp_path / f"{at}{suffix}", frames, 8, comment="{}").read_bytes() for at in range(3)}
    assert len(made) == 1


FULL = """
import resource, signal, sys
import numpy as np
from hy_core import media
from hy_core.errors import HyError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
frames = np.random.default_rng(0).integers(0, 255, (int(sys.argv[2]), 96, 96, 3), np.uint8)
try:
    media.write(sys.argv[1], frames, 8)
except HyError as error:
    print(error.message)
"""


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.gif", "a.png", "a.jpg", "a.webp", "a-%d.jpg"])
def test_a_full_disk_leaves_no_half_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("before")
    frames = "1" if name.endswith(("a.png", "a.jpg", "a.webp")) else "9"
    line = [sys.executable, "-c", FULL, name, frames]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith(f"cannot write {name}") and "File too large" in done.stdout, done
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "before"
