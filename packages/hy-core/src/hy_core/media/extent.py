"""How long a clip is and when its frames begin, from its packets alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from hy_core.errors import HyError
from hy_core.media.container import open_media, video_stream
from hy_core.media.names import PICTURES

MIN_RATE = 1 / 3600
"""Frames a second: a frame that is shown for longer than an hour is a damaged clock."""
_MAX_DRIFT = 0.5  # frames that a rate may be off at the end of a clip


@dataclass(frozen=True)
class Extent:
    """How long a clip is.

    `start`: of the first frame on the file's own clock, in seconds; `duration`: seconds to the end of the last frame,
    0 without pictures; `frames`: their number; `frame`: mean seconds of a frame; `sounds`: number of sound streams;
    `damage`: why the file breaks off, if it does.
    """

    start: float
    duration: float
    frames: int
    frame: float
    sounds: int
    damage: str | None = None

    @property
    def fps(self) -> float:
        """Mean frames a second; 0 without pictures."""
        return 1 / self.frame if self.frame else 0.0


def measure(path: Path | str) -> Extent:
    """Walk through a file's packets without decoding; `HyError` for a picture and for what can't be opened."""
    times, end, sounds, damage = _packets(Path(path))
    if not times:
        return Extent(0.0, 0.0, 0, 0.0, sounds)
    start, count = min(times), len(times)
    mean = (end - start) / count
    if not 0 < mean * MIN_RATE <= 1:
        raise HyError(f"{path} is damaged: {count} frames in {end - start:.0f} s")
    return Extent(start, end - start, count, mean, sounds, damage)


def frame_times(path: Path | str) -> np.ndarray:
    """Return the times of all frames without decoding, ascending: float64 [F] in seconds from the first."""
    times = np.sort(np.asarray(_packets(Path(path))[0], np.float64))
    return times - times[:1]


def even_rate(path: Path | str) -> float:
    """Return the file's own frames a second: as its header says if that is right for all of it, else their mean."""
    extent = measure(path)
    if not extent.frames:
        raise HyError(f"{path} has no picture stream")
    with open_media(path) as container:
        stated = nominal_rate(video_stream(container, Path(path)))
    off = abs(stated * extent.duration - extent.frames)
    return stated if off < _MAX_DRIFT else extent.fps


def nominal_rate(video: Any) -> float:
    """Frames a second by a stream's header; 25 if it says nothing sensible."""
    rate = float(video.average_rate or video.guessed_rate or 0)
    return rate if MIN_RATE <= rate <= 1000 else 25.0


def _packets(path: Path) -> tuple[list[float], float, int, str | None]:
    """The times of a file's frames on its own clock, the end of the last, the sound streams, and any damage."""
    if path.suffix.lower() in PICTURES:
        raise HyError(f"{path} is a picture, not a clip", "give a video")
    times: list[float] = []
    last, end, damage = -math.inf, 0.0, None
    with open_media(path) as container:
        video, sounds = video_stream(container, path), len(container.streams.audio)
        if video is None:
            return [], 0.0, sounds, None
        usual = 1 / nominal_rate(video)
        try:
            for packet in container.demux(video):
                time = packet.pts if packet.pts is not None else packet.dts
                if time is None or packet.size == 0 or packet.is_discard:
                    continue
                begin = float(time * packet.time_base)
                times.append(begin)
                if begin >= last:
                    last, end = begin, begin + (float((packet.duration or 0) * packet.time_base) or usual)
        except (av.FFmpegError, OSError) as problem:
            damage = str(problem.strerror or problem)
    if not times:
        raise HyError(f"{path} has no frames" + (f" ({damage})" if damage else ""))
    return times, end, sounds, damage
