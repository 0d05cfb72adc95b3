"""From a clip to its soundtrack: look at it window by window, make sound, level it, put it into a file."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from hy_core.errors import HyError, UsageError
from hy_core.request import Sound

from hy_audio import mux, reading
from hy_audio.cuts import SIZE, find_cuts
from hy_audio.loudness import LUFS, PEAK, Spool, is_silent, loudness, normalised
from hy_audio.reading import Sight
from hy_audio.windows import Window, plan, stitched, views

log = logging.getLogger(__name__)

Frames = Iterable[tuple[float, np.ndarray]]
"""(seconds from the first frame, frame uint8 [H, W, 3]), in order."""


class Maker(Protocol):
    """What makes the sound of one window: a model with its prompt."""

    rate: int
    """Samples a second of what it makes."""
    seconds: float
    """The longest window that it makes well."""
    sights: Mapping[str, Sight]
    """How it looks at the clip, by name."""

    def make(self, seen: Mapping[str, Sequence[Any]], seconds: float, index: int) -> np.ndarray:
        """Return float32 [channels, n] of `seconds` from the prepared frames of each sight; `index` counts windows."""
        ...


@dataclass(frozen=True)
class Settings:
    """How a soundtrack is put together.

    `lufs`: integrated loudness, None leaves it; `peak`: most true peak in dBTP; `channels`: 1, 2, or None for what
    the maker gives; `existing`: "replace" the sound of the clip, "keep" it as the first of two tracks, or "mix"
    both, the new one `balance` LU over the old; `overlap`: seconds that neighbouring windows share; `cuts`: end
    windows where scenes change.
    """

    lufs: float | None = LUFS
    peak: float = PEAK
    channels: int | None = None
    existing: str = "replace"
    balance: float = 0.0
    overlap: float = 1.0
    cuts: bool = True

    def __post_init__(self) -> None:
        """Refuse numbers that make no soundtrack."""
        if self.existing not in mux.EXISTING:
            raise UsageError(f"existing sound {self.existing!r}", f"one of {', '.join(mux.EXISTING)}")
        if self.channels not in (None, 1, 2):
            raise UsageError(f"{self.channels} channels", "1 is mono, 2 is stereo")
        if self.lufs is not None and not -60 <= self.lufs <= 0:
            raise UsageError(f"{self.lufs:g} LUFS is out of range", "from -60 to 0; -16 is usual")
        if not -20 <= self.peak <= 0:
            raise UsageError(f"a peak of {self.peak:g} dBTP is out of range", "from -20 to 0; -1 is usual")


_MIXED = 48000

Advance = Callable[[int, int], None]
"""Told how many windows of how many are done."""


def made(
    frames: Callable[[tuple[int, int] | None], Frames],
    duration: float,
    maker: Maker,
    settings: Settings,
    advance: Advance = lambda done, count: None,
) -> Iterator[np.ndarray]:
    """Make the sound of a clip, float32 [channels, n] in pieces at the maker's rate.

    `frames(size)` begins a pass through the clip, shrunk to `size` if one is given; there are two of them, one
    to find where scenes change, if the clip is longer than one window.
    """
    overlap = min(settings.overlap, maker.seconds / 2)
    cuts = find_cuts(frames(SIZE)) if settings.cuts and duration > 2 else []
    windows = plan(duration, maker.seconds, overlap, cuts)
    log.info(
        "%d windows, scene changes at %s", len(windows), ", ".join(f"{cut:.2f} s" for cut in cuts) or "none"
    )

    def sounds() -> Iterator[np.ndarray]:
        for index, (window, seen) in enumerate(views(frames(None), windows, maker.sights)):
            yield maker.make(seen, window.seconds, index)
            advance(index + 1, len(windows))

    yield from stitched(windows, sounds(), maker.rate, overlap)


def add_sound(
    source: Path | str,
    target: Path | str,
    maker: Maker,
    settings: Settings | None = None,
    advance: Advance = lambda done, count: None,
) -> Path:
    """Give a clip a soundtrack; a `target` of .wav or .flac gets the sound alone.

    The clip is read in passes and the sound waits on disk, so that its length costs no memory. One-line `HyError`
    for what is no clip; what is damaged gets sound up to there, with a warning.
    """
    source, target, settings = Path(source), Path(target), settings or Settings()
    mux.check_target(target, source)
    extent = reading.measure(source)
    if not extent.frames:
        raise HyError(f"{source} has no picture stream", "sound is made for pictures: give a video")
    if extent.damage:
        log.warning("%s is damaged (%s): it gets sound up to %.2f s", source, extent.damage, extent.duration)
    if settings.existing == "mix" and extent.sounds:
        # What can't be mixed is told before the new sound is made, which takes long.
        for _ in reading.sound(source, _MIXED, 1, (0.0, extent.duration), extent.start):
            pass
    spool = Spool(
        levelled(
            made(lambda size: reading.timed(source, size), extent.duration, maker, settings, advance),
            settings,
        )
    )
    rate = maker.rate
    if settings.existing == "mix" and extent.sounds:
        rate = max(rate, _MIXED)  # the old sound must not lose its treble
        new = Spool(resampled(spool, maker.rate, rate))
        old = Spool(reading.sound(source, rate, new.channels, (0.0, extent.duration), extent.start))
        spool = Spool(mixed(new, old, rate, settings.balance))
    pieces = normalised(spool, rate, settings.lufs, settings.peak)
    if target.suffix.lower() in mux.SOUNDS:
        return mux.write_sound(target, pieces, rate)
    return mux.mux(source, target, pieces, rate, extent, keep=settings.existing == "keep")


def sound_of(
    frames: np.ndarray,
    fps: float,
    maker: Maker,
    settings: Settings | None = None,
    advance: Advance = lambda done, count: None,
) -> Sound:
    """Make the soundtrack of frames in memory, uint8 [F, H, W, 3]: exactly as long as they are."""
    settings = settings or Settings()

    def through(size: tuple[int, int] | None) -> Frames:
        for index, frame in enumerate(frames):
            yield index / fps, frame if size is None else shrunk(frame, size)

    duration = len(frames) / fps
    spool = Spool(levelled(made(through, duration, maker, settings, advance), settings))
    samples = np.concatenate(list(normalised(spool, maker.rate, settings.lufs, settings.peak)), axis=1)
    return Sound(samples[:, : round(duration * maker.rate)], maker.rate)


def shrunk(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A frame as a small picture of `size` (height, width)."""
    from PIL import Image

    return np.asarray(Image.fromarray(frame).resize((size[1], size[0]), Image.Resampling.BOX))


def levelled(pieces: Iterable[np.ndarray], settings: Settings) -> Iterator[np.ndarray]:
    """The pieces with the channels that are asked for: mono is their mean, stereo of mono is twice the same."""
    for piece in pieces:
        if settings.channels == 1 or (settings.channels is None and piece.shape[0] > 2):
            piece = piece.mean(0, keepdims=True)
        elif settings.channels == 2 and piece.shape[0] != 2:
            piece = np.repeat(piece.mean(0, keepdims=True), 2, axis=0)
        yield piece


def resampled(pieces: Iterable[np.ndarray], rate: int, target: int) -> Iterator[np.ndarray]:
    """The pieces [channels, n] at another rate."""
    import soxr

    change = None
    for piece in pieces:
        if change is None:
            change = soxr.ResampleStream(rate, target, piece.shape[0], dtype="float32")
        yield change.resample_chunk(np.ascontiguousarray(piece.T)).reshape(-1, piece.shape[0]).T
    if change is not None:
        last = change.resample_chunk(np.zeros((0, piece.shape[0]), np.float32), last=True)
        yield last.reshape(-1, piece.shape[0]).T


def mixed(new: Spool, old: Spool, rate: int, balance: float = 0.0) -> Iterator[np.ndarray]:
    """Add two sounds, the new one `balance` LU louder than the old, over the length of the new."""
    gain = 1.0
    if not is_silent(new, rate) and not is_silent(old, rate):
        change = loudness(old, rate) - loudness(new, rate) + balance
        gain = 10 ** (change / 20) if math.isfinite(change) else 1.0
    rest, below = iter(old), np.zeros((max(new.channels, 1), 0), np.float32)
    for piece in new:
        while below.shape[1] < piece.shape[1] and (more := next(rest, None)) is not None:
            below = np.concatenate([below, more], axis=1)
        part, below = below[:, : piece.shape[1]], below[:, piece.shape[1] :]
        part = np.pad(part, ((0, 0), (0, piece.shape[1] - part.shape[1])))
        yield piece * np.float32(gain) + part


__all__ = ["Maker", "Settings", "Sight", "Window", "add_sound", "made", "mixed", "sound_of"]
