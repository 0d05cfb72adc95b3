"""Clips for the tests of sound: written by PyAV, as good and as bad as they come."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from hy_core import media
from hy_core.request import Sound


def tone(
    seconds: float, rate: int = 48000, hertz: float = 440.0, level: float = 0.3, channels: int = 1
) -> np.ndarray:
    """A sine, float32 [channels, n]."""
    wave = level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    return np.repeat(wave[None].astype(np.float32), channels, 0)


def pictures(count: int, height: int = 48, width: int = 64, scene: int = 0) -> np.ndarray:
    """A block that moves over a ground that belongs to the scene, uint8 [F, H, W, 3]."""
    rng = np.random.default_rng(scene)
    ground = np.kron(rng.integers(0, 256, (4, 4, 3)), np.ones((height // 4, width // 4, 1))).astype(np.uint8)
    made = np.repeat(ground[None], count, 0)
    for at in range(count):
        made[at, 10:20, at % (width - 12) : at % (width - 12) + 10] = (250, 30, 30)
    return made


def clip(
    path: Path, frames: int = 25, fps: float = 25, sound: np.ndarray | None = None, rate: int = 48000
) -> Path:
    """A clip of one scene."""
    return media.write(path, pictures(frames), fps, None if sound is None else Sound(sound, rate))


def uneven(path: Path, times: list[int], base: int = 1000) -> Path:
    """A clip whose frames are shown at `times` / base seconds; frame i has the level 8 * i."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.width = stream.height = 32
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", Fraction(1, base)
        for index, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 8 * index, np.uint8), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, base)
            out.mux(stream.encode(frame.reformat(format="yuv420p")))
        out.mux(stream.encode(None))
    return path


def not_numbers(path: Path, value: float = np.nan) -> Path:
    """A clip whose sound is PCM in floats, one of which, after 1.46 s, is no number."""
    with av.open(str(path), "w") as out:
        video, sound = (
            out.add_stream("libx264", rate=25),
            out.add_stream("pcm_f32le", rate=48000, layout="mono"),
        )
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for image in pictures(50):
            out.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(video.encode(None))
        wave = tone(2.0)
        wave[0, 70000] = value
        frame = av.AudioFrame.from_ndarray(wave, format="flt", layout="mono")
        frame.sample_rate, frame.pts = 48000, 0
        out.mux(sound.encode(frame))
        out.mux(sound.encode(None))
    return path


def packets(path: Path, kind: str = "video", index: int = 0) -> list[bytes]:
    """The bytes of a stream's packets."""
    with av.open(str(path)) as box:
        stream = [one for one in box.streams if one.type == kind][index]
        return [bytes(packet) for packet in box.demux(stream) if packet.size]


def lasts(path: Path, kind: str) -> float:
    """What the file says of a stream's length, in seconds (that of the file where streams say nothing)."""
    with av.open(str(path)) as box:
        stream = next(one for one in box.streams if one.type == kind)
        return float(stream.duration * stream.time_base) if stream.duration else box.duration / av.time_base
