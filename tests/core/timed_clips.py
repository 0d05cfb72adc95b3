"""Clips for the tests of media: of varying rate, turned, with pixels that aren't square, in HDR."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from hy_core.request import Sound
from PIL import Image


def greys(values: Sequence[int], height: int = 32, width: int = 48) -> np.ndarray:
    """Frames uint8 [F, H, W, 3], each of one grey."""
    shades = np.asarray(values, np.uint8)[:, None, None, None]
    return np.broadcast_to(shades, (len(values), height, width, 3)).copy()


def levels(frames: Any) -> list[int]:
    """The mean of each frame, rounded to tens."""
    return [int(round(float(np.mean(frame)), -1)) for frame in frames]


def timed_clip(
    path: Path,
    frames: np.ndarray,
    times: Sequence[float],
    *,
    codec: str = "libx264",
    pixel_ratio: Fraction | None = None,
    turn: int = 0,
    mirror: bool = False,
    sound: Sound | None = None,
    sound_start: float = 0.0,
) -> Path:
    """Write frames with their times in seconds; `turn` in degrees."""
    with av.open(f"file:{path}", "w") as out:
        video = out.add_stream(codec, rate=30, options={"crf": "10"} if codec == "libx264" else {})
        video.width, video.height, video.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        if pixel_ratio is not None:
            video.codec_context.sample_aspect_ratio = pixel_ratio
        if turn or mirror:
            video.set_display_rotation(turn, mirror)
        voice = out.add_stream("aac", rate=sound.rate, layout="mono") if sound is not None else None
        for image, time in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        if sound is not None and voice is not None:
            for start in range(0, sound.samples.shape[1], 1024):
                piece = av.AudioFrame.from_ndarray(
                    sound.samples[:, start : start + 1024], format="fltp", layout="mono"
                )
                piece.sample_rate = sound.rate
                piece.pts, piece.time_base = start + round(sound_start * sound.rate), Fraction(1, sound.rate)
                out.mux(voice.encode(piece))
            out.mux(voice.encode(None))
    return path


def timed_gif(path: Path, frames: np.ndarray, durations: Sequence[int]) -> Path:
    """Write a GIF of frames that are shown for so many milliseconds each."""
    first, *others = (Image.fromarray(frame).convert("P") for frame in frames)
    first.save(path, save_all=True, append_images=others, duration=list(durations), loop=0)
    return path
