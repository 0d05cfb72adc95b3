"""What is in a folder of clips: sizes, lengths and captions, and the buckets that suit them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hy_core.data import DataSource, SourceSpec, open_source
from hy_core.errors import HyError, MissingError, UsageError
from hy_core.media import timeline
from hy_core.media.clips import probe
from hy_core.media.names import PICTURES
from hy_core.models import Defaults
from hy_core.plugins import Plugins

_MULTIPLE = 16
_SLACK = 0.25  # of a frame: a last frame may begin so much early


@dataclass(frozen=True)
class ClipFile:
    """One file: size in pixels, frames a second, seconds (0 for a picture), and whether it has a caption."""

    path: Path
    width: int
    height: int
    rate: float
    seconds: float
    caption: str

    @property
    def is_picture(self) -> bool:
        """Whether it is a picture."""
        return self.seconds == 0

    def frames(self, rate: float) -> int:
        """Return the largest 4k+1 frames that it has at a rate, 1 for a picture."""
        count = 1 if self.is_picture else max(int(self.seconds * rate + _SLACK), 1)
        return (count - 1) // 4 * 4 + 1


@dataclass(frozen=True)
class Scanned:
    """The files of a folder, and why others can't be read."""

    folder: Path
    files: tuple[ClipFile, ...]
    broken: tuple[str, ...] = ()

    @property
    def videos(self) -> list[ClipFile]:
        """The files that aren't pictures."""
        return [one for one in self.files if not one.is_picture]


def find_plugin() -> Plugins:
    """Load the plugin that reads folders of clips; `MissingError` with what to install without one."""
    plugins = Plugins()
    if "data" not in plugins.found:
        raise MissingError("no installed plugin reads folders of clips", "pip install hy-data")
    plugins.load("data")
    return plugins


def scan(folder: Path) -> Scanned:
    """Look at every clip and picture of a folder; `UsageError` without any, or if one has no caption."""
    if not folder.exists():
        raise MissingError(f"no such folder: {folder}")
    source = _whole(folder)
    files, broken, bare = [], [], []
    for index in range(len(source)):
        clip: Any = source[index]
        caption = clip.caption(np.random.default_rng(0))
        try:
            files.append(_measured(clip.file, caption))
        except HyError as error:
            broken.append(error.message)
            continue
        if not caption.strip():
            bare.append(clip.file)
    if not files:
        raise UsageError(f"{folder}: none of {len(broken)} clips can be read", broken[0] if broken else None)
    if bare:
        raise UsageError(
            f"{folder}: {len(bare)} of {len(files)} clips have no caption, such as {bare[0].name}",
            f"write one into {bare[0].with_suffix('.txt').name} beside it, or let `hy data run` write captions "
            "(docs: Curate your own data)",
        )
    return Scanned(folder, tuple(files), tuple(broken))


def _whole(folder: Path) -> DataSource:
    spec = SourceSpec("folder", frames=1, height=_MULTIPLE, width=_MULTIPLE, options={"path": str(folder)})
    return open_source(spec, find_plugin())


def _measured(path: Path, caption: str) -> ClipFile:
    info = probe(path)
    if path.suffix.lower() in PICTURES:
        return ClipFile(path, info.width, info.height, 1.0, 0.0, caption)
    duration = timeline.measure(path).duration
    return ClipFile(path, info.width, info.height, timeline.even_rate(path), max(duration, 1e-3), caption)


@dataclass(frozen=True)
class Shape:
    """A bucket to be: its shape and the number of files that go into it."""

    frames: int
    height: int
    width: int
    files: int


def rate_of(found: Scanned, defaults: Defaults) -> float:
    """Return the rate that clips are brought to: the model's, or theirs if most have less."""
    rates = [one.rate for one in found.videos]
    return round(min(defaults.fps, statistics.median(rates)), 3) if rates else defaults.fps


def shapes(
    found: Scanned, defaults: Defaults, rate: float, size: tuple[int, int] | None, frames: int | None
) -> list[Shape]:
    """Choose buckets, the one with most files first.

    Areas are that of `size` (width, height), by default the model's own. With a `size` all clips get it; else there is
    one aspect ratio each for wide, square and tall clips, the median of these. Clips have `frames`, or as many as the
    model's own clips and half of the files have; files that are shorter have a bucket of the shortest's length.
    """
    videos = found.videos
    lengths = sorted(one.frames(rate) for one in videos)
    chosen: list[int] = []
    if lengths:
        most = frames or min((defaults.frames - 1) // 4 * 4 + 1, lengths[len(lengths) // 2])
        chosen = [most] + ([lengths[0]] if not frames and lengths[0] < most else [])
    groups: dict[str, list[ClipFile]] = {}
    for one in found.files:
        groups.setdefault("all" if size else _orientation(one), []).append(one)
    result: dict[tuple[int, int, int], int] = {}
    for files in groups.values():
        width, height = size or _size(files, defaults.width * defaults.height)
        for one in files:
            fits = [length for length in chosen if length <= one.frames(rate)]
            if one.is_picture or fits:
                key = (1 if one.is_picture else max(fits), height, width)
                result[key] = result.get(key, 0) + 1
    if not result:
        raise UsageError(
            f"{found.folder}: no clip has {chosen[0] if chosen else 1} frames at {rate:g} a second",
            f"the longest has {lengths[-1]}: --frames {lengths[-1]}" if lengths else None,
        )
    found_shapes = [Shape(*key, count) for key, count in result.items()]
    return sorted(found_shapes, key=lambda one: (-one.files, -one.frames * one.height * one.width))


def _orientation(one: ClipFile) -> str:
    ratio = one.width / one.height
    return "wide" if ratio > 1.2 else "tall" if ratio < 1 / 1.2 else "square"


def _size(files: Sequence[ClipFile], area: int) -> tuple[int, int]:
    """Width and height of about an area at the files' median aspect ratio."""
    ratio = statistics.median(one.width / one.height for one in files)
    height = max(round((area / ratio) ** 0.5 / _MULTIPLE), 1) * _MULTIPLE
    return max(round(height * ratio / _MULTIPLE), 1) * _MULTIPLE, height
