"""Write clips: the writer of each kind of file, by the suffix of its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hy_core.files import Existing
from hy_core.media.gif import GifWriter
from hy_core.media.names import PICTURES, check_suffix
from hy_core.media.numbered import PictureWriter
from hy_core.media.video import VideoWriter
from hy_core.media.writer import Comment, Writer
from hy_core.request import Sound

WRITERS: dict[str, type[Writer]] = {
    ".mp4": VideoWriter,
    ".webm": VideoWriter,
    ".gif": GifWriter,
    **dict.fromkeys(PICTURES, PictureWriter),
}


def open_writer(
    path: Path | str,
    fps: float,
    sound: Sound | None = None,
    comment: Comment = None,
    existing: Existing = "replace",
) -> Writer:
    """Return the writer for the name's suffix; `UsageError` if there is none."""
    path = Path(path)
    check_suffix(path, WRITERS)
    return WRITERS[path.suffix.lower()](path, fps, sound, comment, existing)


def write(
    path: Path | str,
    frames: Any,
    fps: float,
    sound: Sound | None = None,
    comment: Comment = None,
    existing: Existing = "replace",
) -> Path:
    """Write a clip of frames uint8 [F, H, W, 3] and return its path, of pictures the first's.

    It appears complete or not at all; see `hy_core.files` for `existing`.
    """
    with open_writer(path, fps, sound, comment, existing) as out:
        out.add(frames)
    return out.files[0]
