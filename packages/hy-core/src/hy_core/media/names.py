"""Names of clips: kinds of files by their suffix, and number patterns such as `%03d` for pictures."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from hy_core.errors import UsageError
from hy_core.files import check_writable

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
VIDEOS = (".mp4", ".webm", ".gif")
SILENT = (".gif", *PICTURES)
"""Kinds of files that hold no sound."""

_NUMBER = re.compile(r"%(0?)(\d*)d")
_MAX_DIGITS = 9
_MAX_SIDES = {".webp": 16383, ".jpg": 65500, ".jpeg": 65500, ".gif": 65535, ".mp4": 16384, ".webm": 16384}
_MAX_GIF_RATE = 100


def is_numbered(path: Path) -> bool:
    """Whether a picture's name (not its folder's) holds exactly one number pattern; other percent signs are `%%`."""
    rest, count = _NUMBER.subn("", path.name.replace("%%", ""))
    return path.suffix.lower() in PICTURES and count == 1 and "%" not in rest


def frame_path(path: Path, number: int) -> Path:
    """Return the name of picture `number`, from 1; `path` itself if it has no number pattern."""
    if not is_numbered(path):
        return path
    before, zero, digits, after = _NUMBER.split(path.name.replace("%%", "\0"))
    if len(digits) > 2 or int(digits or 0) > _MAX_DIGITS:
        raise UsageError(
            f"{path}: a number has at most {_MAX_DIGITS} digits", f"use {before[:40]}%03d{after}"
        )
    filled = f"{number:{zero}{digits}d}"
    return path.with_name(f"{before}{filled}{after}".replace("\0", "%"))


def check_suffix(path: Path, known: Iterable[str]) -> None:
    """Raise `UsageError` if no writer has the name's suffix."""
    if path.suffix.lower() not in known:
        kind = path.suffix or "a name without suffix"
        raise UsageError(f"{path}: no writer for {kind}", f"use one of {' '.join(known)}")


def check_target(
    path: Path | str,
    frames: int,
    more: Iterable[str] = (),
    *,
    size: tuple[int, int] | None = None,
    fps: float | None = None,
) -> None:
    """Raise `UsageError` now if a clip could not be written to `path` later.

    `frames`: how many it has; `more`: suffixes that plugins write; `size`: (height, width); `fps`: frames a second.
    """
    path, suffix, more = Path(path), Path(path).suffix.lower(), tuple(more)
    check_suffix(path, [*VIDEOS, *PICTURES, *more])
    if suffix not in more:
        if suffix in PICTURES and frames > 1 and not is_numbered(path):
            raise UsageError(f"{path} is one picture but the clip has {frames} frames", pattern_hint(path))
        if size is not None and max(size) > _MAX_SIDES.get(suffix, 1 << 30):
            raise UsageError(f"{path}: {suffix} holds at most {_MAX_SIDES[suffix]} pixels a side", "use .png")
        if suffix == ".gif" and fps is not None and frames > 1 and fps > _MAX_GIF_RATE:
            raise UsageError(
                f"{path}: a GIF shows at most {_MAX_GIF_RATE} frames a second, not {fps:g}", "use .mp4"
            )
    check_writable(path if suffix in more else frame_path(path, frames))


def pattern_hint(path: Path) -> str:
    """Advise on names for a clip of several frames."""
    return f"use {path.stem}-%03d{path.suffix} for numbered pictures, .mp4 for a video, or --frames 1"
