"""The source `sound-clips`: windows of the files that the records of a manifest name, with their sound."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import av
import numpy as np
from hy_core.data import (
    Clip,
    ClipRecord,
    ClipShape,
    SourceSpec,
    check_split,
    fingerprint,
    read_manifest,
    select_split,
)
from hy_core.errors import HyError, UsageError
from hy_core.media import timeline
from hy_core.media.container import open_media, video_stream
from hy_core.media.timeline import Extent
from hy_core.request import Sound
from hy_core.tables import bounded

from hy_audio.frame_sampler import FrameSampler, sample_windows
from hy_audio.stages.captions import cleaned, merged
from hy_audio.windows import Window

log = logging.getLogger(__name__)

_GUESSES = 64  # records that are drawn before all are walked through
_LONG_FRAME = 10.0  # seconds that a frame of a varying rate rarely stands


@dataclass(frozen=True)
class SoundFile:
    """A file that can be used: its extent, seconds, the sound's samples a second, height and width (or 0)."""

    extent: Extent
    seconds: float
    rate: int
    size: tuple[int, int]


@dataclass(frozen=True, eq=False)
class SoundClip(Clip):
    """A window of a record: `seconds` of its file from `start` on, with pictures at `rate` frames a second.

    Pictures are resized to `side` pixels on the shorter side.
    """

    record: ClipRecord
    file: SoundFile
    start: float
    seconds: float
    rate: float
    side: int
    samples: np.ndarray

    @property
    def fps(self) -> float:
        return self.rate

    def video(self) -> np.ndarray:
        """Return the frames, uint8 [T, H, W, 3], T = seconds * fps; `HyError` for a file without pictures."""
        return pictures(self.record.file, self.file, self.start, self.seconds, self.rate, self.side)

    def caption(self, rng: np.random.Generator) -> str:
        """Return what the record says is heard."""
        return caption_of(self.record)

    def sound(self) -> Sound:
        """Return the sound, mono, at the file's own rate, as long as the frames."""
        return Sound(self.samples[None], self.file.rate)


@dataclass(frozen=True)
class SoundClipOptions:
    """The table `[data.sources.sound-clips]`.

    `records` is a manifest of the stages; `seconds` (from, to) how long windows are; `fps` and `side` (pixels of the
    shorter side) how pictures are given; `heldout` the share of files that training doesn't see, 0 to evaluate on the
    training clips.
    """

    records: str = ""
    seconds: tuple[float, ...] = (1.0, 4.0)
    fps: float = bounded(25.0, 0.01, 240)
    side: int = bounded(256, 16, 4096)
    heldout: float = 0.05


class SoundClips:
    """`spec.count` windows of the records of a manifest, with sound and captions.

    Each record is drawn as often, and a window lies anywhere in its span; `spec.group` neighbours last equally long.
    The clip at an index depends on the seed, the records and their files alone. A file that can't be read, has no sound
    or samples that are no numbers is left out, with one line; one that breaks off is used up to there. `UsageError` or
    `MissingError` for records and options that can't be used, `HyError` when no clip is left that lasts long enough.
    """

    def __init__(self, spec: SourceSpec) -> None:
        self.spec, options = spec, spec.read_options(SoundClipOptions)
        if not options.records:
            raise UsageError(f"{spec.label}: no records are given", 'records = "clips.jsonl"')
        self.options, self.seconds = options, _range(options.seconds, spec.label)
        self.path = Path(options.records).expanduser()
        self.records = select_split(
            read_manifest(self.path, check_files=False),
            check_split(spec.split),
            options.heldout,
            str(self.path),
        )
        self.files: dict[Path, SoundFile | None] = {}  # None: left out, with a warning
        known = sorted({one.file for one in self.records if one.file.exists()})
        self.fingerprint = fingerprint(spec, self.path, *known)

    def __len__(self) -> int:
        return self.spec.count or len(self.records)

    def __getitem__(self, index: int) -> SoundClip:
        """Return a window; its sound is read, its pictures aren't yet."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        spec = self.spec
        shared = np.random.default_rng((spec.seed, 2, index // spec.group))
        seconds = round(shared.uniform(*self.seconds), 2)
        rng = np.random.default_rng((spec.seed, 3, index))
        place_in = rng.random()  # drawn once, so that what was left out before changes nothing
        for number in self._order(rng):
            clip = self._clip(self.records[number], seconds, place_in)
            if clip:
                return clip
        lost = sum(file is None for file in self.files.values())
        raise HyError(
            f"{self.path}: no clip lasts {seconds:.2f} s ({len(self.records)} records, {lost} files left out)",
            f"give longer clips, or lower seconds in {spec.label}",
        )

    def shape(self, index: int) -> ClipShape:
        """Return zeros: clips last differently and their pictures have the files' own shapes."""
        return ClipShape(0, 0, 0)

    def _order(self, rng: np.random.Generator) -> Iterator[int]:
        """Records by chance, and in the end all of them."""
        count = len(self.records)
        yield from (int(number) for number in rng.integers(count, size=_GUESSES))
        first = int(rng.integers(count))
        yield from ((first + number) % count for number in range(count))

    def _clip(self, record: ClipRecord, seconds: float, place_in: float) -> SoundClip | None:
        """The window of a record, or None if it has none that long."""
        path = record.file
        file = self._file(path)
        if file is None:
            return None
        begin, end = record.span or (0.0, file.seconds)
        spare = min(end, file.seconds) - begin - seconds
        if spare < -1e-6:
            return None
        start = begin + max(spare, 0.0) * place_in
        count = round(seconds * file.rate)
        try:
            span = (start, start + seconds)
            pieces = [
                piece[0] for piece in timeline.sound(path, file.rate, 1, span, origin=file.extent.start)
            ]
        except HyError as error:
            self._leave_out(path, error.message)
            return None
        samples = np.concatenate([*pieces, np.zeros(0, np.float32)])[:count]
        samples = np.pad(samples, (0, count - len(samples)))
        return SoundClip(record, file, start, seconds, self.options.fps, self.options.side, samples)

    def _file(self, path: Path) -> SoundFile | None:
        if path not in self.files:
            try:
                self.files[path] = examine(path)
            except HyError as error:
                self._leave_out(path, error.message)
        return self.files[path]

    def _leave_out(self, path: Path, reason: str) -> None:
        self.files[path] = None
        log.warning("left out: %s", reason)


def caption_of(record: ClipRecord) -> str:
    """What a record says is heard: its `audio_caption`, else its sound and music captions, else its first caption."""
    found = record.results.get("audio_caption")
    text = cleaned(found.get("text") if isinstance(found, dict) else found)
    names = ("sound_caption", "music_caption", "audio_class")
    both = merged(*(record.results.get(name) for name in names))
    return text or both.get("text") or cleaned(next(iter(record.captions), ""))


def examine(path: Path) -> SoundFile:
    """Check that a file's sound, and its pictures if it has any, can be decoded. HyError if not."""
    extent = timeline.measure(path)
    if not extent.sounds:
        raise HyError(f"{path} has no sound stream")
    if extent.damage:
        log.warning("%s is damaged (%s): it is used up to %.2f s", path, extent.damage, extent.duration)
    with open_media(path) as box:
        stream, whole = video_stream(box, path), (box.duration or 0) / av.time_base
        size = (stream.height, stream.width) if stream is not None else (0, 0)
    if extent.frames:
        next(timeline.frames(path, size=(16, 16)))
    rate = (timeline.sound_format(path) or (0, 0))[0]
    if next(timeline.sound(path, rate, 1, None, origin=extent.start), None) is None:
        raise HyError(f"the sound of {path} cannot be read")
    return SoundFile(extent, extent.duration or whole, rate, size)


def pictures(
    path: Path, source: SoundFile, start: float, seconds: float, fps: float, side: int
) -> np.ndarray:
    """The frames from `start` on, uint8 [T, H, W, 3], T = seconds * fps: what is seen at these moments."""
    shrink = min(side / max(min(source.size), 1), 1.0)
    size = (max(round(source.size[0] * shrink), 1), max(round(source.size[1] * shrink), 1))
    window = Window(start, start + seconds)
    frames = _shown(path, size, window, source.extent)
    ((_, seen),) = sample_windows(frames, [window], {"frames": FrameSampler(fps, np.asarray)})
    return np.stack(seen["frames"])


def _shown(
    path: Path, size: tuple[int, int], window: Window, extent: Extent
) -> Iterator[tuple[float, np.ndarray]]:
    """Frames of a window, and first the one that stands when it begins, which may have begun long before."""
    for before in (2 * extent.frame, _LONG_FRAME, window.start):
        span = (max(window.start - before, 0.0), window.stop)
        frames = timeline.frames(path, span, size=size, origin=extent.start)
        first = next(frames, None)
        if first is not None and first[0] <= window.start + 1e-6:
            return chain([first], frames)
    if first is None:
        raise HyError(f"{path} has no frame at {window.start:.2f} s", "take its record out")
    return chain([first], frames)


def _range(seconds: tuple[float, ...], label: str) -> tuple[float, float]:
    if len(seconds) != 2 or not 0.05 <= seconds[0] <= seconds[1] <= 600:
        raise UsageError(
            f"{label}: seconds = {list(seconds)}",
            "give [from, to] in order, from 0.05 to 600, such as [1.0, 4.0]",
        )
    return seconds[0], seconds[1]
