"""What is given: which pictures and clips, at which frames of the video. Torch isn't needed here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hy_core.errors import HyError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

GROUP = 4
"""Frames of the video that one latent frame stands for; the first stands for one."""
LEAST_SIDE = 16
MOST_BYTES = 2 << 30
"""Of a clip's frames that are held."""
# FRAME=FILE, after the folder that a settings file may have put before it.
KEYFRAME = re.compile(r"(?P<folder>.*/)?(?P<at>\d+(?:\.\d+)?)(?P<unit>s?)=(?P<file>.+)", re.DOTALL)


@dataclass(frozen=True)
class Given:
    """A picture that is given at a frame of the video; `flag` is the option that said so."""

    frame: int
    picture: Path
    flag: str

    @property
    def group(self) -> int:
        """The latent frame that it is in."""
        return group_of(self.frame)


def group_of(frame: int) -> int:
    """The latent frame that a frame of the video is in: 0 is in 0, 1 to 4 are in 1, 5 to 8 in 2..."""
    return -(-frame // GROUP)


def frames_of(group: int) -> str:
    """The frames of the video in a latent frame, in words."""
    return f"frames {GROUP * group - GROUP + 1} to {GROUP * group}" if group else "frame 0"


def keyframe(value: Path, fps: float, flag: str) -> Given:
    """Read `FRAME=FILE`, or `SECONDSs=FILE`; UsageError for anything else."""
    found = KEYFRAME.fullmatch(str(value))
    if found is None or (not found["unit"] and "." in found["at"]):
        raise UsageError(
            f"{flag}: {str(value)!r} is not like 8=picture.png (a frame) or 1.5s=picture.png (a time)"
        )
    frame = round(float(found["at"]) * fps) if found["unit"] else int(found["at"])
    return Given(
        frame, Path(found["folder"] or "") / Path(found["file"]).expanduser(), f"{flag} {found['at']}"
    )


def check(given: list[Given], frames: int, taken: int, by: str) -> list[Given]:
    """The pictures in order of time; UsageError if one is outside the video or two share a latent frame.

    `frames` is the video's length; its first `taken` frames are given by another option, `by`.
    """
    given, last = sorted(given, key=lambda one: one.frame), None
    for one in given:
        if one.frame >= frames:
            raise UsageError(f"{one.flag}: the video has only frames 0 to {frames - 1}")
        if one.frame < taken:
            raise UsageError(
                f"{one.flag}: {by} gives the frames 0 to {taken - 1} already", "drop one of them"
            )
        if last is not None and last.group == one.group:
            raise UsageError(
                f"{last.flag} and {one.flag} are both in {frames_of(one.group)}, which are held together",
                f"put them at least {GROUP} frames apart",
            )
        last = one
    return given


def open_picture(path: Path, flag: str) -> Image.Image:
    """A picture in RGB, upright; HyError for one that can't be read or is too small to show anything."""
    from hy_core.media import read_picture

    picture = read_picture(path)
    if min(picture.size) < LEAST_SIDE:
        raise UsageError(
            f"{flag}: {path} is only {picture.width}x{picture.height} pixels", f"at least {LEAST_SIDE} a side"
        )
    return picture


def end_of(path: Path, count: int, fps: float, flag: str) -> np.ndarray:
    """Return the end of a clip, uint8 [count, H, W, 3]: the frames shown at `fps` back from its last frame.

    `UsageError` if the clip is too short, `HyError` if it can't be read or has frames too large to hold.
    """
    import numpy as np
    from hy_core.media import timeline

    times = timeline.frame_times(path)
    if not len(times):
        raise UsageError(f"{flag}: {path} has no pictures")
    # Half of the shortest frame is rounding; of a clip with an even rate that takes the nearest frames.
    slack = np.diff(times).min() / 2 if len(times) > 1 else 0.5 / fps
    moments = times[-1] - np.arange(count - 1, -1, -1) / fps
    if moments[0] < -slack:
        raise UsageError(
            f"{flag}: {path} has only {len(times)} frames in {times[-1]:g} s; {count} at {fps:g} fps take "
            f"{(count - 1) / fps:g} s",
            "a smaller --i2v-overlap",
        )
    wanted = np.maximum(np.searchsorted(times, moments + slack * (1 - 1e-6), "right") - 1, 0)
    places: dict[int, np.ndarray] = {}
    for time, image in timeline.frames(path, (times[wanted[0]] - slack / 2, np.inf)):
        if (place := int(np.abs(times - time).argmin())) in wanted:
            places[place] = image
            if image.nbytes * len(places) > MOST_BYTES:
                raise HyError(f"{flag}: {path} has frames too large to hold", "make them smaller")
    if missing := [place for place in wanted if place not in places]:
        raise HyError(f"{flag}: {path} is damaged: its frame {missing[0]} can't be read")
    return np.stack([places[place] for place in wanted])


def fitted(frames: Sequence[Image.Image], width: int, height: int, fit: str) -> np.ndarray:
    """Pictures at the video's size, uint8 [F, H, W, 3]."""
    import numpy as np

    return np.stack([np.asarray(resize(one, width, height, fit)) for one in frames])


def resize(picture: Image.Image, width: int, height: int, fit: str) -> Image.Image:
    """A picture at another size: "crop" fills it and cuts off what is over, "pad" adds black bars.

    With "crop" and an official size this is the official preparation: the shorter side to the size's, bilinear, then
    the middle.
    """
    from PIL import Image

    scales = width / picture.width, height / picture.height
    scale = max(scales) if fit == "crop" else min(scales)
    # the side that decides fits exactly; the other is cut to whole pixels
    wide = width if scale == scales[0] else max(int(picture.width * height / picture.height), 1)
    high = height if scale == scales[1] else max(int(picture.height * width / picture.width), 1)
    if (wide, high) != picture.size:
        picture = picture.resize((wide, high), Image.Resampling.BILINEAR)
    left, top = round((wide - width) / 2), round((high - height) / 2)
    return picture.crop((left, top, left + width, top + height))
