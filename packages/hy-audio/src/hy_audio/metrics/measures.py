"""What is measured of one file, and of a set of files beside a real one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from hy_core.errors import HyError, UsageError
from hy_core.media import timeline

from hy_audio.containers import AUDIO_CODECS, SOUNDS
from hy_audio.limiter import true_peak
from hy_audio.loudness import LoudnessMeter, rms_levels
from hy_audio.metrics.distances import cosine, frechet_distance, inception_score, kl_divergence
from hy_audio.metrics.embedders import Embedder, Embedding
from hy_audio.stages.presence import silence
from hy_audio.sync import TOLERANCE, SyncScore, score_clip

SUFFIXES = (*AUDIO_CODECS, *SOUNDS, ".mp3", ".ogg", ".m4a", ".avi")
_TAIL = 1.0  # seconds at the end that should not be silent while the rest isn't
_QUIET = -50.0
_LONGEST = 30.0  # seconds that an embedder hears


@dataclass
class FileMetrics:
    """One file: loudness in LUFS, peak in dBTP, share of silence, whether it ends in silence, and its timing."""

    path: Path
    seconds: float
    loudness: float
    peak: float
    silent: float
    tail: bool
    timing: SyncScore | None
    embeddings: dict[str, Embedding] = field(default_factory=dict)


def measure(
    path: Path, embedders: Mapping[str, Embedder], tolerance: float = TOLERANCE, timing: bool = True
) -> FileMetrics:
    """Measure a clip or a sound; `HyError` if there is no sound. Passes through the file, never holds it."""
    extent = timeline.measure(path)
    form = timeline.sound_format(path)
    if form is None:
        raise HyError(f"{path} has no sound")
    rate, channels = form

    def pieces(rate: int, channels: int, longest: float = math.inf) -> Iterable[np.ndarray]:
        span = None if longest == math.inf else (0.0, longest)
        return timeline.sound(path, rate, channels, span, origin=extent.start)

    meter, count = LoudnessMeter(rate, channels), 0

    def metered() -> Iterable[np.ndarray]:
        nonlocal count
        for piece in pieces(rate, channels):
            meter.add(piece)
            count += piece.shape[1]
            yield piece

    level = rms_levels(metered(), rate)
    last = level[-round(_TAIL / 0.02) :]
    quiet = bool(len(last)) and not (last > _QUIET).any() and bool((level > _QUIET).any())
    found = FileMetrics(
        path,
        count / rate,
        meter.loudness(),
        true_peak(pieces(rate, channels)),
        silence(level),
        quiet and len(level) > len(last),
        score_clip(path, tolerance=tolerance) if timing and extent.frames > 2 else None,
    )
    for name, one in embedders.items():
        heard = list(pieces(one.rate, 1, _LONGEST))
        samples = np.concatenate(heard, axis=1)[0] if heard else np.zeros(one.rate // 10, np.float32)
        found.embeddings[name] = one(samples)
    return found


def files(folder: Path) -> list[Path]:
    """The clips and sounds of a folder (or the one file), by name."""
    if folder.is_file():
        return [folder]
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise UsageError(f"no clips or sounds in {folder}")
    return found


def summary(
    made: Sequence[FileMetrics],
    real: Sequence[FileMetrics] = (),
    captions: Mapping[str, str] | None = None,
    texts: Mapping[str, Callable[[Sequence[str]], np.ndarray]] | None = None,
) -> dict[str, Any]:
    """Return all measures of a set by name, without those that are undefined for it.

    `captions` are by the files' stems, `texts` the text towers of the embedders that have one. KL is of pairs
    with one stem.
    """
    timed = [one.timing for one in made if one.timing is not None]
    matched = sum(one.matched for one in timed)
    events = sum(one.onsets + one.motions for one in timed)
    offsets = [abs(one.offset) for one in timed if not math.isnan(one.offset)]
    heard = [one.loudness for one in made if math.isfinite(one.loudness)]
    found: dict[str, Any] = {
        "files": len(made),
        "seconds": round(sum(one.seconds for one in made), 2),
        "loudness": float(np.mean(heard)) if heard else None,
        "loudness_spread": float(np.std(heard)) if heard else None,
        "peak": max((one.peak for one in made if math.isfinite(one.peak)), default=None),
        "silence": float(np.mean([one.silent for one in made])) if made else None,
        "silent_files": sum(one.silent >= 1 for one in made),
        "silent_tails": sum(one.tail for one in made),
        "onset_f1": 2 * matched / events if events else None,
        "offset": float(np.mean(offsets)) if offsets else None,
    }
    by_stem = {one.path.stem: one for one in real}
    for name in made[0].embeddings if made else ():
        ours = [one.embeddings[name] for one in made]
        scores: dict[str, float] = {}
        if len(real) > 1 and len(made) > 1:
            scores["fd"] = frechet_distance(
                *(np.stack([one.embeddings[name].features for one in side]) for side in (real, made))
            )
        logits = [one.logits for one in ours if one.logits is not None]
        if len(logits) == len(ours):
            scores["is"] = inception_score(np.stack(logits))
            pairs = [
                (theirs, own)
                for one, own in zip(made, logits, strict=True)
                if one.path.stem in by_stem
                and (theirs := by_stem[one.path.stem].embeddings[name].logits) is not None
            ]
            if pairs:
                scores["kl"] = kl_divergence(np.stack([a for a, _ in pairs]), np.stack([b for _, b in pairs]))
        if captions and texts and name in texts:
            captioned = [one for one in made if one.path.stem in captions]
            if captioned:
                states = texts[name]([captions[one.path.stem] for one in captioned])
                features = np.stack([one.embeddings[name].features for one in captioned])
                scores["clap"] = cosine(features, states)
        found[name] = scores
    return found
