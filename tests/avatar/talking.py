"""Talking heads as blocks: a red face with a green mouth on a dark ground, and finders that know how to find them."""

from __future__ import annotations

import wave
from pathlib import Path

import av
import numpy as np
from hy_avatar.expression_extract import NEUTRAL
from hy_core import media
from hy_core.request import Sound

HEIGHT, WIDTH, FPS = 96, 128, 25
FACE = 32  # pixels a side
RATE = 16000


def syllables(frames: int, fps: float = FPS, late: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """How open a mouth is [frames], 0 to 1, and sound [1, N] of that loudness, late by so many seconds."""
    rng = np.random.default_rng(5)
    knots = rng.random(-(-frames // 4) + 2)

    def opening(seconds):
        return np.interp(seconds * fps / 4, np.arange(len(knots)), knots)

    t = np.arange(round(frames / fps * RATE)) / RATE
    sound = 0.5 * opening(np.maximum(t - late, 0)) * np.sin(2 * np.pi * 300 * t) * (t >= late)
    return opening(np.arange(frames) / fps), sound[None].astype(np.float32)


def pictures(
    frames: int = 20, left: float = 40, top: int = 24, moves: float = 0.0, mouth=None, second: bool = False
) -> np.ndarray:
    """A face at `left`, `top` that moves by `moves` pixels a frame; one that is out of the picture isn't drawn."""
    made = np.full((frames, HEIGHT, WIDTH, 3), 20, np.uint8)
    for index, frame in enumerate(made):
        x = round(left + moves * index)
        if 0 <= x <= WIDTH - FACE:
            frame[top : top + FACE, x : x + FACE] = (220, 30, 30)
            high = 2 + round(8 * (0 if mouth is None else mouth[index]))
            frame[top + 20 : top + 20 + high, x + 12 : x + 20] = (30, 220, 30)
        if second:
            frame[60:84, 100:124] = (220, 30, 30)
    return made


def clip(
    path: Path, shown: np.ndarray | None = None, sound: np.ndarray | None = None, fps: float = FPS
) -> Path:
    """Write a video; 16-bit sound at 16 kHz."""
    shown = pictures() if shown is None else shown
    return media.write(path, shown, fps, None if sound is None else Sound(sound, RATE))


def talk(path: Path, frames: int = 20, late: float = 0.0, **more) -> Path:
    """A face that says something."""
    mouth, sound = syllables(frames, late=late)
    return clip(path, pictures(frames, mouth=mouth, **more), sound)


def box(red: np.ndarray) -> list[int]:
    """The box of what is true in a picture [H, W], in pixels."""
    rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]


def blocks(frame: np.ndarray) -> list[list[int]]:
    """The boxes of faces: what isn't dark, parted where a column is all dark."""
    bright = frame.max(-1) > 110
    columns = bright.any(0)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], columns, [False]]).astype(int)))
    found = []
    for left, right in zip(edges[::2], edges[1::2], strict=True):
        part = np.zeros_like(bright)
        part[:, left:right] = bright[:, left:right]
        if right - left > 4:
            found.append(box(part))
    return found


class Faces:
    """Finds blocks."""

    def detect(self, frame: np.ndarray) -> np.ndarray:
        height, width = frame.shape[:2]
        rows = [[*(np.array(one) / [width, height, width, height]), 0.9] for one in blocks(frame)]
        return np.float64(rows).reshape(-1, 5)


class Points:
    """A calm face in the first block; its lips are apart as the green mouth is high."""

    def landmarks(self, frames: np.ndarray) -> np.ndarray:
        found = np.full((len(frames), 68, 2), np.nan)
        for points, frame in zip(found, frames, strict=True):
            if faces := blocks(frame):
                left, top, right, bottom = faces[0]
                size = (right - left) / 2.6
                points[:] = (NEUTRAL * size) + [(left + right) / 2, top + (bottom - top) * 0.35]
                green = frame[..., 1] > 120
                high = box(green)[3] - box(green)[1] if green.any() else 0
                points[65:68, 1] = points[61:64, 1] + high / 4
        return found


class Bodies:
    """Somebody whose nose is the middle of each block; shoulders below."""

    def detect(self, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        faces = blocks(frame)
        points, scores = np.zeros((len(faces), 133, 2)), np.zeros((len(faces), 133))
        for place, score, (left, top, right, bottom) in zip(points, scores, faces, strict=True):
            place[0] = (left + right) / 2, (top + bottom) / 2
            place[5], place[6] = (right, bottom), (left, bottom)
            place[91] = right, bottom  # a wrist of the left hand
            score[[0, 5, 6, 91]] = 0.9
        return points, scores


def stereo_24(path: Path, samples: np.ndarray, rate: int = 44100) -> Path:
    """A WAV of 24 bits, samples [channels, n] of -1 to 1."""
    whole = np.clip(samples, -1, 1).T * (2**23 - 1)
    raw = np.ascontiguousarray(whole, "<i4").view(np.uint8).reshape(*whole.shape, 4)[..., :3]
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[0])
        file.setsampwidth(3)
        file.setframerate(rate)
        file.writeframes(np.ascontiguousarray(raw).tobytes())
    return path


def shifted(path: Path, source: Path, seconds: float) -> Path:
    """The same streams, but the sound's clock begins later by so many seconds."""
    with av.open(str(source)) as box_in, av.open(str(path), "w") as out:
        made = {stream: out.add_stream_from_template(stream) for stream in box_in.streams}
        for packet in box_in.demux():
            if packet.dts is None:
                continue
            if packet.stream.type == "audio":
                move = round(seconds / packet.time_base)
                packet.pts, packet.dts = packet.pts + move, packet.dts + move
            packet.stream = made[packet.stream]
            out.mux(packet)
    return path
