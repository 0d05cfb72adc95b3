"""Which files sound can be written to, and copying the streams of one container to another without decoding."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
from hy_core.errors import HyError, UsageError
from hy_core.files import check_writable
from hy_core.media.container import open_media, video_stream

log = logging.getLogger(__name__)

SOUNDS = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16")}
"""Format and sample format of libsndfile by suffix."""
AUDIO_CODECS = {".mp4": "aac", ".mov": "aac", ".m4v": "aac", ".mkv": "aac", ".webm": "libopus"}
"""Encoder of the new sound by the suffix of the container."""
RATE = 48000
"""Samples a second of encoded sound: every player accepts it, and Opus needs it."""
EXISTING = ("replace", "keep", "mix")
"""What happens to sound that a clip has already."""

_FORMATS = {".mp4": "mp4", ".mov": "mov", ".m4v": "mp4", ".mkv": "matroska", ".webm": "webm"}
_TAGGED = (".mp4", ".mov", ".m4v")  # containers whose sample entries have a four-character code
_HEVC_PARAMETER_SETS = {32, 33, 34}  # NAL unit types of VPS, SPS and PPS


def check_target(path: Path | str, source: Path | str | None = None) -> None:
    """Raise `UsageError` now if sound, or `source` with sound, could not be written to `path` later.

    Checked are the suffix, the name, the folder, and whether the container holds the pictures of `source`.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (*AUDIO_CODECS, *SOUNDS):
        kind = path.suffix or "a name without suffix"
        raise UsageError(f"{path}: can't write {kind}", f"use one of {' '.join([*AUDIO_CODECS, *SOUNDS])}")
    check_writable(path)
    if source is None:
        return
    if path.exists() and path.samefile(source):
        raise UsageError(f"{path} is the clip itself", "give another name with -o")
    if suffix in SOUNDS:
        return
    with open_media(source) as container:
        video = video_stream(container, Path(source))
        if video is not None and not holds(suffix, video):
            others = [other for other in (".mp4", ".mkv", ".webm") if holds(other, video)]
            raise UsageError(
                f"{path}: {suffix} holds no {codec_name(video)} pictures",
                f"name a {' or '.join(others)}" if others else "convert the clip first, or name a .wav",
            )


def open_output(path: Path, suffix: str, options: dict[str, str] | None = None) -> Any:
    """Open a container of the kind of `suffix` for writing; `path` is a file's name, never an address."""
    return av.open(f"file:{path}", "w", format=_FORMATS[suffix], options=options or {})


def holds(suffix: str, video: Any) -> bool:
    """Whether a container can hold copied pictures beside new sound: it is tried in memory, up to the header."""
    return _accepts(suffix, video, None)


def add_copy(output: Any, suffix: str, stream: Any) -> Any:
    """Add a stream to an output container that takes the packets of `stream` as they are.

    MP4 and MOV keep the sample entry of the source (avc3, dvh1, ProRes' variants), and HEVC becomes hvc1 if its
    parameter sets are in the header: QuickTime, Safari and iOS don't play hev1. ValueError or `av.FFmpegError` if the
    container holds no such stream.
    """
    copied = output.add_stream_from_template(
        stream, opaque=True
    )  # by the codec's id: AV1 may have no encoder
    if stream.type == "video" and suffix in _TAGGED:
        tag = next((tag for tag in _sample_entries(stream) if _accepts(suffix, stream, tag)), None)
        if tag is not None:
            copied.codec_context.codec_tag = tag
    return copied


def copy_streams(source: Any, output: Any, suffix: str, video: Any, with_sound: bool) -> dict[Any, Any]:
    """Add copies of the pictures, the subtitles and, `with_sound`, the sound of `source`: old streams to new ones.

    Subtitles and sound that the container can't hold are left out with a warning.
    """
    try:
        copied = {video: add_copy(output, suffix, video)}
    except (ValueError, av.FFmpegError) as problem:
        raise UsageError(f"{suffix} holds no {codec_name(video)} pictures", "name a .mkv") from problem
    for stream in [*(source.streams.audio if with_sound else ()), *source.streams.subtitles]:
        try:
            copied[stream] = add_copy(output, suffix, stream)
        except (ValueError, av.FFmpegError):
            log.warning("%s holds no %s: that stream was left out", suffix, codec_name(stream))
    return copied


def copied_packets(source: Any, streams: list[Any], path: Path) -> Iterator[Any]:
    """Yield the packets of `streams` in the order of the file; damage ends them with a warning in the log."""
    count = 0
    try:
        for packet in source.demux(streams):
            if packet.size == 0:
                continue  # the end of a stream
            if packet.dts is None and packet.pts is None:
                raise HyError(f"{path} does not say when its frames are shown", "convert it to MP4 first")
            count += 1
            yield packet
    except (av.FFmpegError, OSError) as problem:
        if not count:
            raise
        log.warning("%s is damaged (%s): it was copied up to there", path, problem.strerror)


def codec_name(stream: Any) -> str:
    """The name of a stream's codec ("av1"), not of the library that decodes it."""
    context = stream.codec_context
    return "unknown" if context is None else str(context.codec.canonical_name)


def has_parameter_sets(extradata: bytes | None) -> bool:
    """Whether HEVC's codec data, as hvcC or with start codes, has VPS, SPS and PPS.

    hvcC is ISO/IEC 14496-15, 8.3.2.1: 22 bytes, a number of arrays, and for each its NAL unit type and its units.
    """
    data = extradata or b""
    found = set()
    if data[:1] == b"\x01":
        at = 23
        for _ in range(data[22] if len(data) > 22 else 0):
            kind, count = data[at : at + 1], int.from_bytes(data[at + 1 : at + 3], "big")
            at += 3
            for _ in range(count):
                size = int.from_bytes(data[at : at + 2], "big")
                at += 2 + size
                if kind and 0 < size and at <= len(data):
                    found.add(kind[0] & 0x3F)
    else:
        found = {unit[0] >> 1 & 0x3F for unit in data.split(b"\0\0\1")[1:] if unit}
    return found >= _HEVC_PARAMETER_SETS


def _sample_entries(video: Any) -> list[str]:
    """Codes to try, the best first."""
    context = video.codec_context
    own = str(context.codec_tag)
    own = own if len(own) == 4 and own.isascii() and own.isprintable() else ""
    if codec_name(video) != "hevc":
        return [own] if own else []
    if own in ("", "hev1", "hvc1") or not own.startswith("dv"):
        return ["hvc1" if has_parameter_sets(context.extradata) else "hev1"]
    return [own, "hvc1" if has_parameter_sets(context.extradata) else "hev1"]


def _accepts(suffix: str, video: Any, tag: str | None) -> bool:
    output = av.open(io.BytesIO(), "w", format=_FORMATS[suffix])
    try:
        copied = output.add_stream_from_template(video, opaque=True)
        if tag is not None:
            copied.codec_context.codec_tag = tag
        output.add_stream(AUDIO_CODECS[suffix], rate=RATE, layout="mono")
        output.start_encoding()
    except (ValueError, av.FFmpegError):
        return False
    finally:
        output.close()
    return True
