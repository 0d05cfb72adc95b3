"""Pictures at frames of a video: which frame of which file, and their order. No torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from hy_core.errors import UsageError

GROUP = 4
"""Frames of the video in one latent frame; the first latent frame is one frame."""
# FRAME=FILE or TIMEs=FILE. A relative value of a settings file comes with the folder of that file in front.
KEYFRAME = re.compile(r"(?P<folder>.*/)?(?P<at>\d+(?:\.\d+)?)(?P<unit>s?)=(?P<file>.+)", re.DOTALL)


@dataclass(frozen=True)
class FixedPicture:
    """A picture at a frame of the video; `flag` is the option that set it, for errors."""

    frame: int
    picture: Path
    flag: str

    @property
    def group(self) -> int:
        """The latent frame."""
        return group_of(self.frame)


def group_of(frame: int) -> int:
    """Return the latent frame of a frame of the video: 0 is in 0, 1 to 4 are in 1, 5 to 8 in 2."""
    return -(-frame // GROUP)


def frames_of(group: int) -> str:
    """Return the frames of a latent frame in words."""
    return "frame 0" if group == 0 else f"frames {GROUP * group - GROUP + 1} to {GROUP * group}"


def parse_keyframe(value: Path, fps: float, flag: str) -> FixedPicture:
    """Parse `FRAME=FILE`, or `SECONDSs=FILE`; UsageError for anything else."""
    found = KEYFRAME.fullmatch(str(value))
    if found is None or (not found["unit"] and "." in found["at"]) or len(found["at"]) > 12:
        raise UsageError(
            f"{flag}: {str(value)!r} is not like 8=picture.png (a frame) or 1.5s=picture.png (a time)"
        )
    frame = round(float(found["at"]) * fps) if found["unit"] else int(found["at"])
    file = Path(found["file"])
    try:
        file = file.expanduser()
    except RuntimeError as error:
        raise UsageError(f"{flag}: {str(value)!r}: {error}") from None
    return FixedPicture(frame, Path(found["folder"] or "") / file, f"{flag} {found['at']}")


def in_order(pictures: list[FixedPicture], frames: int, taken: int, by: str) -> list[FixedPicture]:
    """Return the pictures in order of time.

    `frames` is the video's length; its first `taken` frames are set by another option, `by`. UsageError for a picture
    outside of the video or in these frames, and for two in one latent frame.
    """
    pictures, last = sorted(pictures, key=lambda one: one.frame), None
    for one in pictures:
        if one.frame >= frames:
            raise UsageError(f"{one.flag}: the video has only frames 0 to {frames - 1}")
        if one.frame < taken:
            raise UsageError(f"{one.flag}: {by} sets the frames 0 to {taken - 1} already", "drop one of them")
        if last is not None and last.group == one.group:
            raise UsageError(
                f"{last.flag} and {one.flag} are both in {frames_of(one.group)}, which are fixed together",
                f"put them at least {GROUP} frames apart",
            )
        last = one
    return pictures
