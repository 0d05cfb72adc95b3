"""Sound beside copied pictures: AV1, HEVC's sample entries, and containers that can't hold a codec."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from audio.clips import packets, pictures, tone
from hy_audio.codec.mel import MelConfig
from hy_audio.codec.vocoder import VocoderConfig
from hy_audio.containers import check_target, has_parameter_sets
from hy_audio.dit.config import AudioDiTConfig
from hy_audio.foley import DACConfig, FoleyConfig
from hy_audio.mux import mux
from hy_core.errors import UsageError
from hy_core.media import timeline


def encoded(path: Path, codec: str, tag: str | None = None, **options: str) -> Path:
    """Five frames by an encoder of FFmpeg; `tag` is the code of the sample entry."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=8, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        if tag:
            stream.codec_context.codec_tag = tag
        for image in pictures(5):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(stream.encode(None))
    return path


def with_sound(source: Path, target: Path) -> Path:
    check_target(target, source)
    return mux(source, target, [tone(1)], 48000, timeline.measure(source))


def tag_of(path: Path) -> str:
    with av.open(str(path)) as container:
        return container.streams.video[0].codec_context.codec_tag


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_av1_pictures_get_sound_and_stay_the_same_packets(tmp_path, suffix):
    source = encoded(tmp_path / "a.mp4", "libsvtav1", preset="12")
    made = with_sound(source, tmp_path / f"b{suffix}")
    assert packets(made) == packets(source) and timeline.measure(made).sounds == 1


@pytest.mark.parametrize("tag", ["hvc1", "hev1"])
@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_hevc_with_its_parameter_sets_in_the_header_is_tagged_hvc1(tmp_path, suffix, tag):
    source = encoded(tmp_path / "a.mp4", "libx265", tag, **{"x265-params": "log-level=none"})
    assert tag_of(source) == tag
    made = with_sound(source, tmp_path / f"b{suffix}")
    assert tag_of(made) == "hvc1" and packets(made) == packets(source)


def test_other_sample_entries_are_kept(tmp_path):
    source = encoded(tmp_path / "a.mp4", "libx264", "avc3")
    assert tag_of(with_sound(source, tmp_path / "b.mp4")) == "avc3"


def test_a_header_without_parameter_sets_has_none():
    assert not has_parameter_sets(None) and not has_parameter_sets(b"\x01" + bytes(22))
    assert not has_parameter_sets(b"\x01" + bytes(21) + b"\xff" + b"\x20\xff\xff\xff\xff")  # cut off
    start = b"\0\0\1"
    assert has_parameter_sets(start + b"\x40\1" + start + b"\x42\1" + start + b"\x44\1")


@pytest.mark.parametrize(
    ("codec", "suffix", "hint"), [("libx264", ".webm", ".mp4 or .mkv"), ("libsvtav1", ".mov", ".mp4 or .mkv or .webm")]
)  # fmt: skip
def test_a_container_that_cannot_hold_the_pictures_is_refused_by_the_codecs_name(
    tmp_path, codec, suffix, hint
):
    source = encoded(tmp_path / "a.mp4", codec)
    with pytest.raises(UsageError, match=f"{suffix} holds no (h264|av1) pictures") as error:
        check_target(tmp_path / f"b{suffix}", source)
    assert error.value.hint == f"name a {hint}"
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize(
    "name", ["take:1.mp4", "2025-01-01T10:00:00.mkv", "\u89c6" * 80 + ".mp4", "tcp:1.wav"]
)
def test_names_that_look_like_addresses_and_long_names_are_files(tmp_path, monkeypatch, name):
    from hy_audio.sound_files import write_sound

    monkeypatch.chdir(tmp_path)
    source = encoded(Path("a.mp4"), "libx264")
    if name.endswith(".wav"):
        write_sound(name, [np.zeros((1, 100), np.float32)], 8000)
    else:
        with_sound(source, Path(name))
    assert (tmp_path / name).is_file()


@pytest.mark.parametrize("kind", [AudioDiTConfig, FoleyConfig, DACConfig, MelConfig, VocoderConfig])
@pytest.mark.parametrize("value", [0, -1, "x", True, None, 10**12, float("nan"), [[1]], {"a": 1}])
def test_configurations_refuse_wrong_types_and_sizes_in_one_line(kind, value):
    first = {DACConfig: "encoder_dim", MelConfig: "bins", VocoderConfig: "channels"}.get(kind, "width")
    table = {first: value, "continuous": True} if kind is DACConfig else {first: value}
    if kind is DACConfig and value is None:
        return  # absent
    with pytest.raises(UsageError) as error:
        kind.from_dict(table)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_depths_of_millions_are_refused():
    for table in ({"depth_triple": 10**8}, {"depth_single": 10**8}):
        with pytest.raises(UsageError, match="is not between"):
            AudioDiTConfig.from_dict(table)
        with pytest.raises(UsageError, match="is not between"):
            FoleyConfig.from_dict(table)
