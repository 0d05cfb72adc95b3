"""Clips in files: MP4, WebM, GIF, numbered pictures, one picture."""

from __future__ import annotations

from hy_core.media.reading import Clip, Info, probe, read, read_picture, read_sound, stream, stream_sound
from hy_core.media.writing import (
    PICTURES,
    WRITERS,
    Writer,
    check_target,
    numbered,
    open_writer,
    write,
)

__all__ = [
    "PICTURES",
    "WRITERS",
    "Clip",
    "Info",
    "Writer",
    "check_target",
    "numbered",
    "open_writer",
    "probe",
    "read",
    "read_picture",
    "read_sound",
    "stream",
    "stream_sound",
    "write",
]
