"""Generate the soundtrack of a clip: sample frames by windows, generate sound, normalise its loudness, write it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from hy_core.errors import HyError
from hy_core.files import Existing
from hy_core.media import timeline
from hy_core.request import Sound

from hy_audio.containers import RATE, SOUNDS, check_target
from hy_audio.cuts import SIZE, find_cuts
from hy_audio.frame_sampler import FrameSampler, sample_windows
from hy_audio.limiter import normalise_loudness
from hy_audio.mixing import convert_channels, mix, resample
from hy_audio.mux import mux
from hy_audio.sound_files import write_sound
from hy_audio.soundtrack_options import SoundtrackOptions
from hy_audio.temporary import TemporarySound
from hy_audio.windows import join_windows, plan_windows

log = logging.getLogger(__name__)

Frames = Iterable[tuple[float, np.ndarray]]
"""(seconds from the first frame, frame uint8 [H, W, 3]), in order."""


class AudioGenerator(Protocol):
    """A model with its prompt, that generates the sound of one window after another."""

    rate: int
    """Samples a second of its sound, in Hz."""
    seconds: float
    """Longest window, in seconds."""
    samplers: Mapping[str, FrameSampler]
    """Which frames it takes, by the names of its inputs."""

    def generate(self, inputs: Mapping[str, Sequence[Any]], seconds: float, index: int) -> np.ndarray:
        """Return float32 [channels, n] of `seconds` in [-1, 1] from each sampler's frames; `index` counts windows."""
        ...


Progress = Callable[[int, int], None]
"""Called with the number of windows that are done and the number of all."""


def generate_windows(
    frames: Callable[[tuple[int, int] | None], Frames],
    duration: float,
    generator: AudioGenerator,
    settings: SoundtrackOptions,
    progress: Progress = lambda done, count: None,
) -> Iterator[np.ndarray]:
    """Yield the sound of a clip, float32 [channels, n] in pieces at the generator's rate.

    `frames(size)` starts a pass through the clip, its frames resized to `size` (height, width) if that isn't None; a
    first pass finds the scene changes of a clip of over 2 s. `duration`: in seconds.
    """
    overlap = min(settings.overlap, generator.seconds / 2)
    cuts = find_cuts(frames(SIZE)) if settings.cuts and duration > 2 else []
    windows = plan_windows(duration, generator.seconds, overlap, cuts)
    log.info(
        "%d windows, scene changes at %s", len(windows), ", ".join(f"{cut:.2f} s" for cut in cuts) or "none"
    )

    def sounds() -> Iterator[np.ndarray]:
        for index, (window, inputs) in enumerate(sample_windows(frames(None), windows, generator.samplers)):
            yield generator.generate(inputs, window.seconds, index)
            progress(index + 1, len(windows))

    yield from join_windows(windows, sounds(), generator.rate, overlap)


def add_soundtrack(
    source: Path | str,
    target: Path | str,
    generator: AudioGenerator,
    settings: SoundtrackOptions | None = None,
    progress: Progress = lambda done, count: None,
    existing: Existing = "replace",
) -> Path:
    """Write a clip with a soundtrack and return its path; a `target` of .wav or .flac gets the sound alone.

    `existing`: for a target that exists, see `hy_core.files`.

    The clip is read in passes and sound is stored on disk, so that memory doesn't grow with its length. A damaged clip
    gets sound up to the damage, with a warning. `HyError` for a file without pictures, `UsageError` for a target that
    can't hold them (see `hy_audio.containers.check_target`).
    """
    source, target, settings = Path(source), Path(target), settings or SoundtrackOptions()
    check_target(target, source)
    extent = timeline.measure(source)
    if not extent.frames:
        raise HyError(f"{source} has no picture stream", "sound is made for pictures: give a video")
    if extent.damage:
        log.warning("%s is damaged (%s): it gets sound up to %.2f s", source, extent.damage, extent.duration)
    if settings.existing == "mix" and extent.sounds:
        # Sound that can't be read is an error before the new sound is generated, which takes long.
        for _ in timeline.sound(source, RATE, 1, (0.0, extent.duration), origin=extent.start):
            pass
    sound = TemporarySound(
        convert_channels(
            generate_windows(
                lambda size: timeline.frames(source, size=size),
                extent.duration,
                generator,
                settings,
                progress,
            ),
            settings.channels,
        )
    )
    rate = generator.rate
    if settings.existing == "mix" and extent.sounds:
        rate = max(rate, RATE)  # the old sound must not lose its treble
        new = TemporarySound(resample(sound, generator.rate, rate))
        old = TemporarySound(
            timeline.sound(source, rate, new.channels, (0.0, extent.duration), origin=extent.start)
        )
        sound = TemporarySound(mix(new, old, rate, settings.balance))
    pieces = normalise_loudness(sound, rate, settings.lufs, settings.peak)
    if target.suffix.lower() in SOUNDS:
        return write_sound(target, pieces, rate, existing)
    keep_sound = settings.existing == "keep"
    return mux(source, target, pieces, rate, extent, keep_sound, existing)


def generate_soundtrack(
    frames: np.ndarray,
    fps: float,
    generator: AudioGenerator,
    settings: SoundtrackOptions | None = None,
    progress: Progress = lambda done, count: None,
) -> Sound:
    """Return the soundtrack of frames in memory, uint8 [F, H, W, 3], exactly as long as they are."""
    settings = settings or SoundtrackOptions()

    def through(size: tuple[int, int] | None) -> Frames:
        for index, frame in enumerate(frames):
            yield index / fps, frame if size is None else resize(frame, size)

    duration = len(frames) / fps
    sound = TemporarySound(
        convert_channels(
            generate_windows(through, duration, generator, settings, progress), settings.channels
        )
    )
    samples = np.concatenate(
        list(normalise_loudness(sound, generator.rate, settings.lufs, settings.peak)), axis=1
    )
    return Sound(samples[:, : round(duration * generator.rate)], generator.rate)


def resize(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Shrink a frame, uint8 [H, W, 3], to `size` (height, width) by the mean of each area."""
    from PIL import Image

    return np.asarray(Image.fromarray(frame).resize((size[1], size[0]), Image.Resampling.BOX))
