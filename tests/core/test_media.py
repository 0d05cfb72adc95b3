"""Clips are written whole or not at all, come back as they were, and hostile files are one line."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import av
import numpy as np
import pytest
from hy_core import media
from hy_core.errors import HyError, MissingError, UsageError
from hy_core.media.video import open_sound, put_sound
from hy_core.request import Sound
from PIL import Image


def clip(frames: int = 17, height: int = 64, width: int = 64) -> np.ndarray:
    """A red block that moves right over a gradient: uint8 [F, H, W, 3]."""
    y, x = np.mgrid[:height, :width]
    ground = np.stack([x * 200 // width, y * 200 // height, np.full_like(x, 96)], -1).astype(np.uint8)
    made = np.repeat(ground[None], frames, 0)
    for at in range(frames):
        made[at, height // 4 : height // 2, at * 2 : at * 2 + width // 4] = (220, 30, 30)
    return made


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * np.log10(255**2 / max(np.square(a.astype(float) - b).mean(), 1e-9))


def tone(seconds: float, rate: int = 16000, channels: int = 1) -> Sound:
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)
    return Sound(np.repeat(wave[None].astype(np.float32), channels, 0), rate)


@pytest.mark.parametrize(("name", "least"), [("a.mp4", 28), ("a.webm", 28), ("a.gif", 28)])
def test_a_video_comes_back_with_frames_rate_and_comment(tmp_path: Path, name: str, least: float) -> None:
    frames = clip()
    path = media.write(tmp_path / name, frames, 8, comment='{"it": "ümlaut \\u001b"}')
    seen, info = media.read(path), media.probe(path)
    assert seen.frames.shape == frames.shape and seen.frames.dtype == np.uint8
    assert psnr(seen.frames, frames) > least
    assert abs(seen.frames.astype(float).mean((0, 1, 2)) - frames.mean((0, 1, 2))).max() < 3  # no colour cast
    assert info.comment == '{"it": "ümlaut \\u001b"}' and (info.width, info.height) == (64, 64)
    if name != "a.gif":  # a GIF counts hundredths of a second
        assert info.fps == 8
    assert [one.name for one in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp"])
def test_one_frame_is_a_picture(tmp_path: Path, name: str) -> None:
    frames = clip(1)
    path = media.write(tmp_path / name, frames, 8, comment='{"it": 1}')
    assert psnr(media.read(path).frames, frames) > (30 if name == "a.jpg" else 90)
    assert media.probe(path).comment == '{"it": 1}'


def test_numbered_pictures_are_the_very_frames(tmp_path: Path) -> None:
    frames = clip(5)
    media.write(tmp_path / "shots" / "a-%03d.png", frames, 8, comment="{}")
    paths = sorted((tmp_path / "shots").iterdir())
    assert [path.name for path in paths] == [f"a-{n:03d}.png" for n in range(1, 6)]
    assert np.array_equal(np.stack([np.asarray(Image.open(path)) for path in paths]), frames)


@pytest.mark.parametrize("fps", [8, 24, 23.976, 29.97, 12.5, 1])
def test_rates_are_kept(tmp_path: Path, fps: float) -> None:
    path = media.write(tmp_path / "a.mp4", clip(5), fps)
    assert media.probe(path).fps == pytest.approx(fps, abs=1e-3)


def test_a_gif_lasts_as_long_as_the_clip(tmp_path: Path) -> None:
    path = media.write(tmp_path / "a.gif", clip(24), 24)
    with Image.open(path) as gif:
        lasts = 0
        for at in range(gif.n_frames):
            gif.seek(at)
            lasts += gif.info["duration"]
    assert lasts == pytest.approx(1000, abs=10)


@pytest.mark.parametrize(("height", "width"), [(33, 47), (2, 2), (1, 1), (48, 80)])
def test_odd_sizes_are_written(tmp_path: Path, height: int, width: int) -> None:
    frames = np.full((5, height, width, 3), 128, np.uint8)
    seen = media.read(media.write(tmp_path / "a.mp4", frames, 8)).frames
    assert seen.shape[1:3] == (height + height % 2, width + width % 2)
    assert abs(seen.astype(int) - 128).max() < 8


@pytest.mark.parametrize("name", ["a.mp4", "a.webm"])
@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (44100, 2), (48000, 2), (12345, 1)])
def test_sound_comes_back_at_its_pitch_and_length(
    tmp_path: Path, name: str, rate: int, channels: int
) -> None:
    path = media.write(tmp_path / name, clip(17), 8, tone(17 / 8, rate, channels))
    found = media.read(path).sound
    assert found is not None and found.samples.shape[0] == channels and found.samples.dtype == np.float32
    assert found.samples.shape[1] / found.rate == pytest.approx(17 / 8, abs=0.125)  # under one frame
    spectrum = np.abs(np.fft.rfft(found.samples[0]))
    assert spectrum.argmax() * found.rate / found.samples.shape[1] == pytest.approx(440, abs=3)
    assert np.abs(found.samples).max() == pytest.approx(0.5, abs=0.15)


def test_frames_can_come_in_parts_and_as_tensors(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    frames = clip(9)
    for name in ("a.mp4", "a.gif"):
        with media.open_writer(tmp_path / name, 8) as out:
            out.add(frames[:1])
            out.add(torch.from_numpy(frames[1:5]))
            assert not (tmp_path / name).exists()
            out.add(frames[5:])
    whole, gif = media.write(tmp_path / "b.mp4", frames, 8), media.write(tmp_path / "b.gif", frames, 8)
    assert (tmp_path / "a.gif").read_bytes() == gif.read_bytes()
    # x264's bytes depend on what was in memory before (MALLOC_PERTURB_ shows it): what is seen is compared.
    parts, at_once = (np.asarray(media.read(path).frames, np.int16) for path in (tmp_path / "a.mp4", whole))
    assert parts.shape == at_once.shape and np.abs(parts - at_once).mean() < 0.5
    assert np.abs(parts[1:] - at_once[:-1]).mean() > 0.5  # and no frame is another


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.gif", "a.png", "a-%02d.png"])
def test_a_failure_leaves_nothing_behind_and_keeps_what_was_there(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"before")
    with pytest.raises(KeyboardInterrupt), media.open_writer(tmp_path / name, 8) as out:
        out.add(clip(1))
        raise KeyboardInterrupt
    assert [one.name for one in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"before"


def test_no_frames_are_an_error_and_no_file(tmp_path: Path) -> None:
    for name in ("a.mp4", "a.gif", "a.png"):
        with pytest.raises(HyError), media.open_writer(tmp_path / name, 8):
            pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "frames", [np.zeros((2, 8, 8, 3), np.float32), np.zeros((2, 8, 8, 4), np.uint8), np.zeros(3)]
)
def test_frames_of_another_kind_are_refused(tmp_path: Path, frames: np.ndarray) -> None:
    with pytest.raises(HyError, match="uint8"):
        media.write(tmp_path / "a.mp4", frames, 8)
    assert not list(tmp_path.iterdir())


def test_targets_are_checked_before_any_work(tmp_path: Path) -> None:
    media.check_target(tmp_path / "new" / "a.mp4", 17)
    media.check_target(tmp_path / "a.png", 1)
    media.check_target(tmp_path / "a-%03d.png", 17)
    media.check_target(tmp_path / "a.avif", 17, [".avif"])
    (tmp_path / "file").write_text("")
    for path, frames in (("a.png", 17), ("a.xyz", 17), ("a", 1), ("file/a.mp4", 17), ("%d/a.png", 17)):
        with pytest.raises(UsageError):
            media.check_target(tmp_path / path, frames)
    with pytest.raises(UsageError, match="folder"):
        (tmp_path / "folder.mp4").mkdir()
        media.check_target(tmp_path / "folder.mp4", 17)
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match=str(tmp_path)):
        media.check_target(tmp_path / "a.mp4", 17)


def test_files_that_are_no_video_are_one_line(tmp_path: Path) -> None:
    good = media.write(tmp_path / "good.mp4", clip(17), 8).read_bytes()
    playlist = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
    bad = {
        "empty.mp4": b"",
        "noise.mp4": np.random.default_rng(0).bytes(5000),
        "text.webm": b"hello" * 100,
        "cut.mp4": good[:200],
        "playlist.mp4": playlist,
        "concat.mp4": b"ffconcat version 1.0\nfile /etc/hostname\n",
        "empty.png": b"",
        "noise.jpg": b"\xff\xd8\xff" + b"x" * 500,
        "bomb.png": png_header(100_000, 100_000),
    }
    for name, data in bad.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(HyError) as caught:
            media.read(tmp_path / name)
        assert name in caught.value.message and "\n" not in caught.value.message
    with pytest.raises(MissingError, match="nothing.mp4"):
        media.read(tmp_path / "nothing.mp4")
    with pytest.raises(HyError):
        media.read(tmp_path)


def png_header(width: int, height: int) -> bytes:
    import zlib

    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))


def test_a_file_that_breaks_off_gives_what_came_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (33, 64, 64, 3), np.uint8)  # so that it has some bytes
    data = media.write(tmp_path / "a.webm", frames, 8).read_bytes()
    (tmp_path / "cut.webm").write_bytes(data[: len(data) // 2])
    assert 0 < len(media.read(tmp_path / "cut.webm").frames) < 33


def test_a_file_with_sound_alone_has_no_frames(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as box:
        voice = open_sound(box, "aac", tone(1))
        put_sound(box, voice, tone(1))
    with pytest.raises(HyError, match="no picture"):
        media.read(tmp_path / "a.mp4")
    assert media.read_sound(tmp_path / "a.mp4") is not None


def test_reading_stops_at_the_frames_asked_for(tmp_path: Path) -> None:
    path = media.write(tmp_path / "a.mp4", clip(17), 8)
    assert len(media.read(path, most=3).frames) == 3


def test_a_name_with_a_percent_sign_is_a_name(tmp_path: Path) -> None:
    path = media.write(tmp_path / "100%d.mp4", clip(5), 8)
    assert path.is_file() and len(media.read(path).frames) == 5
    assert media.write(tmp_path / "50%.png", clip(1), 8).is_file()


def test_rotated_videos_are_read_upright(tmp_path: Path) -> None:
    frames = clip(5, 48, 80)
    data = media.write(tmp_path / "a.mp4", frames, 8).read_bytes()
    one = 1 << 16
    upright = struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
    turned = struct.pack(">9i", 0, one, 0, -one, 0, 0, 0, 0, 1 << 30)  # a quarter turn clockwise when shown
    track = data.index(b"tkhd")
    (tmp_path / "b.mp4").write_bytes(data[:track] + data[track:].replace(upright, turned, 1))
    seen = media.read(tmp_path / "b.mp4").frames
    assert seen.shape[1:3] == (80, 48)
    assert psnr(seen, np.rot90(frames, -1, (1, 2))) > 28
