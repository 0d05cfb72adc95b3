"""Open files of video and sound safely: containers only, from an opened regular file, within limits of size.

FFmpeg never sees a name: names are not taken for addresses (`tcp:…`) or patterns, and playlists, which name other
files and addresses, are no containers.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av

from hy_core.errors import HyError
from hy_core.files import open_regular

log = logging.getLogger(__name__)

CONTAINERS = (
    "mov,mp4,matroska,webm,gif,avi,flv,mpeg,mpegts,ogg,apng,asf,wav,mp3,flac,aac,y4m,yuv4mpegpipe,ivf"
)
MAX_PIXELS = 8192 * 4352
"""Pixels of a video's frame: 8K is 7680x4320."""
COMMENT_BYTES = 1 << 20


@contextmanager
def open_media(path: Path | str) -> Iterator[Any]:
    """Open a file of video or sound as a PyAV input container.

    `HyError` for what is no container of `CONTAINERS`, and for pictures of more than `MAX_PIXELS`.
    """
    path = Path(path)
    with open_regular(path) as file:
        try:
            container = av.open(
                file,
                options={"format_whitelist": CONTAINERS, "max_pixels": str(MAX_PIXELS)},
                metadata_errors="replace",
            )
        except (av.FFmpegError, OSError, ValueError, MemoryError) as problem:
            reason = getattr(problem, "strerror", None) or "not a known container"
            raise HyError(f"{path} cannot be read as a video ({reason})") from problem
        with container:
            for stream in container.streams.video:
                _limit(stream.codec_context, path)
            yield container


def _limit(context: Any, path: Path) -> None:
    """Refuse frames that are too large, and make a decoder refuse those that the header doesn't show."""
    if context is None:
        return
    if context.width * context.height > MAX_PIXELS:
        raise HyError(
            f"{path} claims {context.width}x{context.height} pixels, too many",
            "frames of at most 8192x4352 pixels are read",
        )
    context.options = {**context.options, "max_pixels": str(MAX_PIXELS)}


def video_stream(container: Any, path: Path) -> Any | None:
    """Return the first stream of moving pictures, None if there is none; a cover beside a song is none.

    `HyError` for a stream of an unknown codec.
    """
    for stream in container.streams.video:
        if stream.disposition & av.stream.Disposition.attached_pic:
            continue
        if stream.codec_context is None:
            raise HyError(f"{path} has pictures of an unknown codec, or its header is damaged")
        return stream
    return None


def audio_stream(container: Any, path: Path) -> Any | None:
    """Return the first sound stream, None if there is none; `HyError` for an unknown codec or no sampling rate."""
    for stream in container.streams.audio:
        if stream.codec_context is None or not stream.rate or not stream.codec_context.layout.nb_channels:
            raise HyError(f"{path} has sound of an unknown codec, or its header is damaged")
        return stream
    return None


def comment_of(container: Any) -> str | None:
    """Return the comment tag of MP4 or Matroska (whose tags are upper case)."""
    for name, value in container.metadata.items():
        if name.lower() == "comment" and len(value) <= COMMENT_BYTES:
            return str(value)
    return None


def start_of(stream: Any) -> float | None:
    """Return when a stream begins on its file's clock, in seconds; None if it doesn't say."""
    return None if stream.start_time is None else float(stream.start_time * stream.time_base)


def seek(container: Any, time: float) -> bool:
    """Go to the key frame before a time on the file's clock; False for a file that can't, which stays at its start."""
    try:
        container.seek(max(int(time * av.time_base), 0))
    except (av.FFmpegError, OSError):
        log.debug("%s can't be sought", container.name)
        return False
    return True
