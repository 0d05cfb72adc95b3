"""Clips of your own to learn from: windows of the files that the records of the stages name."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
from hy_core.errors import HyError, MissingError, UsageError
from hy_core.media import timeline
from hy_core.media.container import open_media, video_stream
from hy_core.media.timeline import Extent
from hy_core.stage import place

from hy_audio.frame_sampler import FrameSampler, sample_windows
from hy_audio.stages.captions import cleaned, merged
from hy_audio.windows import Window

log = logging.getLogger(__name__)

_GUESSES = 64  # records that are drawn before all are walked through
_LONG_FRAME = 10.0  # seconds that a frame of a varying rate rarely stands


@dataclass(frozen=True)
class Record:
    """What is used of a record: its file, as it is written and as it is found; the span in seconds; the caption."""

    name: str
    path: Path
    span: tuple[float, float] | None
    caption: str


@dataclass(frozen=True)
class Source:
    """A file that can be used: its extent, seconds, the sound's samples a second, height and width (or 0)."""

    extent: Extent
    seconds: float
    rate: int
    size: tuple[int, int]


class SoundClips:
    """`length` windows of your clips with their sound and captions: the dataset `sound-clips`.

    `records` is a JSONL of records (`hy_audio.stages`); a relative path in it is looked for beside it, then where the
    program runs. Rejected records are skipped. Each record is drawn as often, and a window of `seconds` (from, to) lies
    anywhere in its span; `block` neighbours last equally long. Pictures are given at `fps`, whatever the file's rate,
    and resized to `side` pixels on the shorter side. The share `heldout` of the files, told by their names, is never
    learned from; with 0 the same clips are measured that are learned from.

    The item at an index depends on the seed, the records and their files alone. A file that can't be read, has no sound
    or samples that are no numbers is left out, with one line; one that breaks off is used up to there. UsageError or
    MissingError for records and numbers that can't be used, HyError when no clip is left that lasts long enough.
    """

    def __init__(
        self,
        length: int,
        seed: int = 0,
        split: str = "train",
        block: int = 1,
        records: str | Path = "",
        seconds: Sequence[float] = (1.0, 4.0),
        fps: float = 25.0,
        side: int = 256,
        heldout: float = 0.05,
    ) -> None:
        if not str(records):
            raise UsageError("sound-clips: records must be given", 'records = "clips.jsonl" in [data.clips]')
        self.length, self.seed, self.block = length, seed, block
        self.seconds = _range(seconds)
        if not 0 < fps <= 240 or not 16 <= side <= 4096 or not 0 <= heldout < 1:
            raise UsageError(
                f"sound-clips: fps = {fps}, side = {side}, heldout = {heldout} are out of range",
                "up to 240 a second, 16 to 4096 pixels, a share below 1",
            )
        self.fps, self.side, self.path = float(fps), int(side), Path(records).expanduser()
        self.records = _part(read_records(self.path), split, heldout, self.path)
        self.sources: dict[Path, Source | None] = {}  # None: left out, and told

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return pixels (a function that reads uint8 [T, H, W, 3]), fps, sound (float32 [N]), rate and caption.

        The sound is mono at the file's own rate and lasts as long as the frames; path and start (seconds) say where it
        is from. A file without pictures has no pixels to read: HyError.
        """
        if not 0 <= index < self.length:
            raise IndexError(index)
        shared = np.random.default_rng((self.seed, 2, index // self.block))
        seconds = round(shared.uniform(*self.seconds), 2)
        rng = np.random.default_rng((self.seed, 3, index))
        place_in = rng.random()  # drawn once, so that what was left out before changes nothing
        for number in self._order(rng):
            item = self._item(self.records[number], seconds, place_in)
            if item:
                return item
        lost = sum(source is None for source in self.sources.values())
        raise HyError(
            f"{self.path}: no clip lasts {seconds:.2f} s ({len(self.records)} records, {lost} files left out)",
            "give longer clips, or lower data.clips.seconds",
        )

    def _order(self, rng: np.random.Generator) -> Iterator[int]:
        """Records by chance, and in the end all of them."""
        count = len(self.records)
        yield from (int(number) for number in rng.integers(count, size=_GUESSES))
        first = int(rng.integers(count))
        yield from ((first + number) % count for number in range(count))

    def _item(self, record: Record, seconds: float, place_in: float) -> dict[str, Any] | None:
        """The window of a record, or None if it has none that long."""
        source = self._source(record.path)
        if source is None:
            return None
        begin, end = record.span or (0.0, source.seconds)
        spare = min(end, source.seconds) - begin - seconds
        if spare < -1e-6:
            return None
        start = begin + max(spare, 0.0) * place_in
        count = round(seconds * source.rate)
        try:
            span = (start, start + seconds)
            pieces = [
                piece[0]
                for piece in timeline.sound(record.path, source.rate, 1, span, origin=source.extent.start)
            ]
        except HyError as error:
            self._leave_out(record.path, error.message)
            return None
        sound = np.concatenate([*pieces, np.zeros(0, np.float32)])[:count]
        return {
            "pixels": partial(pictures, record.path, source, start, seconds, self.fps, self.side),
            "fps": self.fps,
            "sound": np.pad(sound, (0, count - len(sound))),
            "rate": source.rate,
            "caption": record.caption,
            "path": str(record.path),
            "start": start,
        }

    def _source(self, path: Path) -> Source | None:
        if path not in self.sources:
            try:
                self.sources[path] = examine(path)
            except HyError as error:
                self._leave_out(path, error.message)
        return self.sources[path]

    def _leave_out(self, path: Path, reason: str) -> None:
        self.sources[path] = None
        log.warning("left out: %s", reason)


def read_records(path: Path) -> list[Record]:
    """The records of a JSONL that weren't rejected. UsageError names a line that is none, MissingError the file."""
    if not path.is_file():
        raise MissingError(f"no records in {path}", "a JSONL that the stages of hy-audio wrote")
    found, rejected = [], 0
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                row = _row(line, f"{path}, line {number}")
                if row.get("rejected"):
                    rejected += 1
                    continue
                try:
                    file, span = place(row)
                except UsageError as error:
                    raise UsageError(f"{path}, line {number}: {error.message}", error.hint) from None
                beside = path.parent / file
                found.append(Record(str(file), beside if beside.exists() else file, span, caption_of(row)))
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not a text in UTF-8 ({error.reason})") from None
    if not found:
        raise UsageError(f"{path} has no record to learn from ({rejected} are rejected)")
    log.info("%s: %d records, %d more are rejected", path, len(found), rejected)
    return found


def caption_of(row: Mapping[str, Any]) -> str:
    """What a record says is heard: its `audio_caption`, or that of its sound and music captions, or its `caption`."""
    caption = row.get("audio_caption")
    text = cleaned(caption.get("text") if isinstance(caption, Mapping) else caption)
    both = merged(row.get("sound_caption"), row.get("music_caption"), row.get("audio_class"))
    return text or both.get("text") or cleaned(row.get("caption"))


def examine(path: Path) -> Source:
    """Look whether a file can be used: its pictures, if any, and its sound can be decoded. HyError if not."""
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
    return Source(extent, extent.duration or whole, rate, size)


def pictures(path: Path, source: Source, start: float, seconds: float, fps: float, side: int) -> np.ndarray:
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


def _row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise UsageError(
            f"{where} is not JSON", "if it is the last, what wrote the file was stopped"
        ) from None
    if not isinstance(row, dict):
        raise UsageError(f"{where} is no record", '{"path": "a.mp4", "audio_caption": {"text": "rain"}}')
    return row


def _range(seconds: Any) -> tuple[float, float]:
    try:
        least, most = (float(value) for value in seconds)
    except (TypeError, ValueError):
        raise UsageError(
            f"sound-clips: seconds = {seconds!r}", "give [from, to], such as [1.0, 4.0]"
        ) from None
    if not 0.05 <= least <= most <= 600:
        raise UsageError(f"sound-clips: seconds from {least:g} to {most:g}", "in order, from 0.05 to 600")
    return least, most


def _part(records: list[Record], split: str, heldout: float, path: Path) -> list[Record]:
    """One side of the records. A file is on one side with all its spans, by its name: in every run the same."""
    if not heldout:
        return records
    files = sorted({one.name for one in records}, key=_shuffled)
    count = max(round(heldout * len(files)), 1)
    if count >= len(files):
        raise UsageError(
            f"{path}: none of {len(files)} file is left to learn from",
            "give more files, or heldout = 0 to measure on those that are learned from",
        )
    held = set(files[:count])
    return [one for one in records if (one.name in held) == (split == "heldout")]


def _shuffled(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
