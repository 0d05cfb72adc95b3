"""Frames and sound are read by their times, as they are shown, within bounds."""

from __future__ import annotations

import gc
import logging
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from core.timed_clips import greys, levels, timed_clip, timed_gif
from hy_core import media
from hy_core.errors import HyError
from hy_core.media import timeline
from hy_core.media.hdr import to_sdr
from hy_core.request import Sound

SHADES = [20, 60, 100, 140, 180, 220]
TIMES = [0.0, 0.1, 0.2, 0.3, 0.8, 1.6]  # fast, then slow; the last is shown as long as the header says


def varying(folder: Path, suffix: str) -> Path:
    if suffix == ".gif":
        return timed_gif(folder / "a.gif", greys(SHADES), [100, 100, 100, 500, 800, 400])
    codec = {".webm": "libvpx-vp9"}.get(suffix, "libx264")
    return timed_clip(folder / f"a{suffix}", greys(SHADES), TIMES, codec=codec)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".mov", ".gif"])
def test_frames_of_a_varying_rate_come_with_their_times(tmp_path: Path, suffix: str) -> None:
    found = list(timeline.frames(varying(tmp_path, suffix)))
    assert [time for time, _ in found] == pytest.approx(TIMES, abs=0.011)
    assert levels(frame for _, frame in found) == SHADES


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".gif"])
def test_at_an_even_rate_each_moment_has_the_frame_that_is_shown_then(tmp_path: Path, suffix: str) -> None:
    found = levels(timeline.frames_at(varying(tmp_path, suffix), 10))
    assert found[:17] == [20, 60, 100] + [140] * 5 + [180] * 8 + [220]
    assert levels(timeline.frames_at(varying(tmp_path, suffix), 5, count=4)) == [20, 100, 140, 140]
    read = media.read(varying(tmp_path, suffix))
    middle = levels(read.frames)[round(1.2 * read.fps)]
    assert middle == 180  # by a mean rate it would be another


def test_a_span_begins_and_ends_at_its_times(tmp_path: Path) -> None:
    shades = [5 * i for i in range(50)]
    path = timed_clip(tmp_path / "a.mp4", greys(shades), [i / 10 for i in range(50)])
    inside = list(timeline.frames(path, (3.0, 3.5)))
    assert [round(time, 3) for time, _ in inside] == [3.0, 3.1, 3.2, 3.3, 3.4]
    assert [np.mean(frame) for _, frame in inside] == pytest.approx([150, 155, 160, 165, 170], abs=2)
    even = list(timeline.frames_at(path, 5, (3.05, 4.0)))
    assert [np.mean(frame) for frame in even] == pytest.approx([155, 165, 175, 185, 195], abs=7)
    with pytest.raises(HyError, match="no frames from 9 s"):
        list(timeline.frames_at(path, 5, (9.0, 10.0)))


@pytest.mark.parametrize("fps", [8, 24, 23.976, 29.97, 60, 12.5])
@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif"])
def test_an_even_clip_is_read_frame_by_frame(tmp_path: Path, fps: float, suffix: str) -> None:
    if suffix == ".gif" and fps > 50:
        pytest.skip("a GIF counts hundredths of a second")
    shades = [(i * 37) % 200 + 20 for i in range(60)]
    path = media.write(tmp_path / f"a{suffix}", greys(shades), fps)
    found = [np.mean(frame) for frame in media.stream(path)]
    assert found == pytest.approx(shades, abs=4)
    assert media.read(path).fps == pytest.approx(fps, rel=0.02)


def corners(image: np.ndarray) -> str:
    """Where the bright corner of a picture is: top or bottom, left or right."""
    height, width = image.shape[0] // 2, image.shape[1] // 2
    quarters = {
        "top left": image[:height, :width],
        "top right": image[:height, width:],
        "bottom left": image[height:, :width],
        "bottom right": image[height:, width:],
    }
    return max(quarters, key=lambda name: float(quarters[name].mean()))


@pytest.mark.parametrize(
    ("matrix", "size", "corner"),
    [
        ((1, 0, 0, 1), (32, 48), "top left"),
        ((0, 1, -1, 0), (48, 32), "top right"),  # a quarter turn clockwise
        ((-1, 0, 0, -1), (32, 48), "bottom right"),
        ((0, -1, 1, 0), (48, 32), "bottom left"),
        ((-1, 0, 0, 1), (32, 48), "top right"),  # mirrored
        ((1, 0, 0, -1), (32, 48), "bottom left"),
        ((0, 1, 1, 0), (48, 32), "top left"),  # turned and mirrored
    ],
)
def test_frames_are_turned_and_mirrored_as_the_file_says(
    tmp_path: Path, matrix: tuple[int, ...], size: tuple[int, int], corner: str
) -> None:
    frames = greys([0] * 3)
    frames[:, :16, :24] = 250
    data = media.write(tmp_path / "a.mp4", frames, 8).read_bytes()
    one, (a, b, c, d) = 1 << 16, matrix
    plain = struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
    turned = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    track = data.index(b"tkhd")
    (tmp_path / "b.mp4").write_bytes(data[:track] + data[track:].replace(plain, turned, 1))
    seen, about = media.read(tmp_path / "b.mp4").frames, media.probe(tmp_path / "b.mp4")
    assert seen.shape[1:3] == size == (about.height, about.width)
    assert corners(seen[0]) == corner
    small = next(timeline.frames(tmp_path / "b.mp4", size=(size[0] // 2, size[1] // 2)))[1]
    assert small.shape == (size[0] // 2, size[1] // 2, 3) and corners(small) == corner


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize(
    ("ratio", "size"), [((2, 1), (32, 96)), ((1, 2), (64, 48)), ((4, 3), (32, 64)), ((1, 500), (32, 48))]
)
def test_pixels_are_made_square(
    tmp_path: Path, suffix: str, ratio: tuple[int, int], size: tuple[int, int]
) -> None:
    path = timed_clip(tmp_path / f"a{suffix}", greys([99] * 3), [0, 0.1, 0.2], pixel_ratio=Fraction(*ratio))
    about = media.probe(path)
    assert (about.height, about.width) == size == media.read(path).frames.shape[1:3]


def test_hdr_is_warned_of_and_shown_as_sdr(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as out:
        video = out.add_stream("libx264", rate=8)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p10le"
        video.codec_context.color_trc, video.codec_context.color_primaries = 16, 9
        video.codec_context.colorspace = 9
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 148, np.uint8), format="rgb24")
            frame.pts = None
            out.mux(video.encode(frame.reformat(format="yuv420p10le")))
        out.mux(video.encode(None))
    seen = media.read(tmp_path / "a.mkv").frames
    assert "is HDR (PQ)" in caplog.text
    assert 225 < seen.mean() < 255  # 148 of 255 in PQ is diffuse white, 203 cd/m²


def test_hdr_white_grey_and_highlights_are_where_sdr_has_them() -> None:
    nits = np.array([0.0, 20.3, 203.0, 1000.0, 10000.0])  # PQ's inverse, SMPTE ST 2084
    power = (nits / 10000) ** 0.1593017578125
    coded = ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375
    image = np.repeat((coded * 65535).round().astype(np.uint16)[None, :, None], 3, 2)
    black, grey, white, bright, most = to_sdr(image, 16)[0, :, 0].astype(int)
    assert black == 0 and abs(grey - 255 * 0.1 ** (1 / 2.4)) < 2
    assert 225 < white < bright < most <= 255
    hlg = np.full((1, 1, 3), round(0.75 * 65535), np.uint16)  # HLG's diffuse white
    assert abs(int(to_sdr(hlg, 18)[0, 0, 0]) - white) < 4


def test_sound_is_in_step_with_the_first_frame(tmp_path: Path) -> None:
    wave = np.zeros((1, 16000), np.float32)
    wave[0, 8000:] = np.sin(np.arange(8000) * 0.3)  # silent for half a second
    path = timed_clip(
        tmp_path / "a.mkv",
        greys([9] * 20),
        [5 + i / 10 for i in range(20)],
        sound=Sound(wave, 16000),
        sound_start=5.4,
    )
    found = np.concatenate(list(timeline.sound(path, 16000)), 1)[0]
    begun = int(np.argmax(np.abs(found) > 0.1)) / 16000
    assert begun == pytest.approx(0.9, abs=0.03)
    part = np.concatenate(list(timeline.sound(path, 16000, span=(0.8, 1.2))), 1)[0]
    assert len(part) == 6400 and int(np.argmax(np.abs(part) > 0.1)) / 16000 == pytest.approx(0.1, abs=0.03)
    assert np.concatenate(list(timeline.sound(path, 8000, 2)), 1).shape[0] == 2


def test_measure_reads_packets_alone(tmp_path: Path) -> None:
    path = timed_clip(tmp_path / "a.mkv", greys(SHADES), [3 + time for time in TIMES])
    extent = timeline.measure(path)
    assert (extent.start, extent.frames, extent.sounds) == (pytest.approx(3), 6, 0)
    assert extent.duration == pytest.approx(1.6 + 1 / 30, abs=0.02) and extent.damage is None
    assert timeline.sound_format(path) is None


@pytest.mark.parametrize(
    ("suffix", "share"),
    [
        *((suffix, share) for suffix in (".mp4", ".webm", ".mkv", ".gif") for share in (0.5, 0.9)),
        (".avi", 0.5),
    ],
)
def test_a_file_that_breaks_off_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, suffix: str, share: float
) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (33, 64, 64, 3), np.uint8)
    if suffix in (".mkv", ".avi"):
        path = timed_clip(tmp_path / f"a{suffix}", frames, [i / 10 for i in range(33)], codec="mpeg4")
    else:
        path = media.write(tmp_path / f"a{suffix}", frames, 10)
    assert len(media.read(path).frames) == 33 and not caplog.records
    data = path.read_bytes()
    (tmp_path / f"cut{suffix}").write_bytes(data[: int(len(data) * share)])
    with caplog.at_level(logging.WARNING):
        try:
            assert 0 < len(media.read(tmp_path / f"cut{suffix}").frames) < 33
        except HyError as error:
            assert suffix in (".mp4", ".avi") and "\n" not in error.message
        else:
            assert f"cut{suffix}" in caplog.text


def test_sound_that_breaks_off_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import wave

    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(np.random.default_rng(0).integers(-9999, 9999, 32000, np.int16).tobytes())
    assert sum(map(len, media.stream_sound(tmp_path / "a.wav", 16000))) == 32000 and not caplog.records
    (tmp_path / "b.wav").write_bytes((tmp_path / "a.wav").read_bytes()[:32000])
    assert 0 < sum(map(len, media.stream_sound(tmp_path / "b.wav", 16000))) < 32000
    assert "b.wav breaks off" in caplog.text


def test_a_crop_is_of_the_frames_as_they_are_shown(tmp_path: Path) -> None:
    frames = greys([0] * 2)
    frames[:, 8:16, 24:40] = 200
    path = media.write(tmp_path / "a.mp4", frames, 8)
    inside = next(timeline.frames(path, crop=(24, 8, 40, 16)))[1]
    assert inside.shape == (8, 16, 3) and inside.mean() > 190
    with pytest.raises(HyError, match="48x32, too small"):
        next(timeline.frames(path, crop=(0, 0, 64, 16)))


def test_frames_are_freed_as_they_are_read(tmp_path: Path) -> None:
    """Without the garbage collector too: frames in reference cycles would hold a large video in memory."""
    path = media.write(tmp_path / "a.mp4", np.zeros((40, 32, 48, 3), np.uint8), 8)

    def alive() -> int:
        # Each one and its frame refer to each other.
        return sum(type(one).__name__ == "SideDataContainer" for one in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = alive()
        assert sum(1 for _ in timeline.frames(path)) == 40
        assert alive() - before <= 1
    finally:
        gc.enable()
