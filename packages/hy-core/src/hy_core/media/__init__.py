"""Clips in files: MP4, WebM, GIF, numbered pictures, one picture. For frames by their times see `timeline`."""

from __future__ import annotations

from hy_core.media.clips import Clip, Info, probe, read, read_comment, read_sound, stream, stream_sound
from hy_core.media.names import PICTURES, SILENT, check_target, frame_path, is_numbered
from hy_core.media.pictures import read_picture
from hy_core.media.writer import Writer
from hy_core.media.writing import WRITERS, open_writer, write

__all__ = [
    "PICTURES",
    "SILENT",
    "WRITERS",
    "Clip",
    "Info",
    "Writer",
    "check_target",
    "frame_path",
    "is_numbered",
    "open_writer",
    "probe",
    "read",
    "read_comment",
    "read_picture",
    "read_sound",
    "stream",
    "stream_sound",
    "write",
]
