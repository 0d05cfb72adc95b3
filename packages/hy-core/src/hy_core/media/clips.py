"""Whole clips and what their headers say, for callers that need no times (see `timeline` for those that do)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hy_core.errors import HyError
from hy_core.media import timeline
from hy_core.media.container import audio_stream, comment_of, open_media, video_stream
from hy_core.media.decoding import Decoder
from hy_core.media.display import Display
from hy_core.media.names import PICTURES
from hy_core.media.pictures import open_picture, picture_comment, to_rgb, upright
from hy_core.request import Sound

MAX_BYTES = 8 << 30


@dataclass
class Clip:
    """A clip in memory: `frames` uint8 [F, H, W, 3] at an even rate of `fps`, and the sound if there is any."""

    frames: np.ndarray
    fps: float
    sound: Sound | None = None


@dataclass(frozen=True)
class Info:
    """What a file says of itself.

    `width` and `height`: pixels in which it is shown; `fps`: mean frames a second; `frames`: None when unknown;
    `sound`: whether it has any; `comment`: None when it has none.
    """

    width: int
    height: int
    fps: float
    frames: int | None
    sound: bool
    comment: str | None


def probe(path: Path | str) -> Info:
    """Return size, rate and comment of a file from its header and first frame; `HyError` for no video or picture."""
    path = Path(path)
    if path.suffix.lower() in PICTURES:
        with open_picture(path) as picture:
            return Info(*upright(picture).size, 1.0, 1, False, picture_comment(picture))
    with open_media(path) as container:
        video = video_stream(container, path)
        if video is None:
            raise HyError(f"{path} has no picture stream")
        if 0 < float(video.average_rate or 0) < timeline.MIN_RATE:
            raise HyError(f"{path} is damaged: a frame of it is shown for hours")
        rate, count = timeline.nominal_rate(video), video.frames or None
        ratio, has_sound = video.sample_aspect_ratio, audio_stream(container, path) is not None
        frame = next(iter(Decoder(path, container, video)), None)
        if frame is None:
            raise HyError(f"{path} has no frames")
        height, width = Display.of(frame, ratio).size(frame)
    return Info(width, height, rate, count, has_sound, read_comment(path))


def read_comment(path: Path | str) -> str | None:
    """Return the comment tag of a picture or a video, None if it has none; nothing is decoded."""
    path = Path(path)
    if path.suffix.lower() in (*PICTURES, ".gif"):
        with open_picture(
            path, pixels=path.suffix.lower() == ".png"
        ) as picture:  # PNG text may follow pixels
            return picture_comment(picture)
    with open_media(path) as container:
        return comment_of(container)


def read(path: Path | str, most: int | None = None) -> Clip:
    """Read a clip, or its first `most` frames, with its sound; a picture is one frame.

    Frames of a varying rate are taken at an even one, `timeline.even_rate`. `HyError` for more than 8 GB of frames.
    """
    path = Path(path)
    if path.suffix.lower() in PICTURES:
        return Clip(np.stack(list(stream(path))), 1.0)
    fps, frames, held = timeline.even_rate(path), [], 0
    for image in timeline.frames_at(path, count=most):
        held += image.nbytes
        if held > MAX_BYTES:
            raise HyError(f"{path} is too long to hold: more than {MAX_BYTES >> 30} GB of frames")
        frames.append(image)
    return Clip(np.stack(frames), fps, read_sound(path))


def stream(path: Path | str) -> Iterator[np.ndarray]:
    """Yield the frames of a clip at its own even rate, or a picture: uint8 [H, W, 3], upright, of one size."""
    path = Path(path)
    if path.suffix.lower() in PICTURES:
        with open_picture(path) as picture:
            yield np.asarray(to_rgb(upright(picture)))
    else:
        yield from timeline.frames_at(path)


def read_sound(path: Path | str) -> Sound | None:
    """Read the first sound stream at its own rate, one or two channels, from the first frame on; None without any."""
    found = timeline.sound_format(path)
    pieces = list(timeline.sound(path, *found)) if found else []
    return Sound(np.concatenate(pieces, axis=1), found[0]) if found and pieces else None


def stream_sound(path: Path | str, rate: int) -> Iterator[np.ndarray]:
    """Yield the first sound stream in pieces, the mean of its channels: float32 [n] at `rate` Hz.

    It begins at the first frame. `HyError` for a file without sound, or with samples that are not finite.
    """
    if timeline.sound_format(path) is None:
        raise HyError(f"{path} has no sound stream")
    empty = True
    for piece in timeline.sound(path, rate):
        empty = False
        yield piece[0]
    if empty:
        raise HyError(f"the sound of {path} is empty")
