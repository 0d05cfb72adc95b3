"""What is said in a clip: features of its speech, whether somebody speaks, and whether the lips agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from hy_core.data import ClipRecord, Stage
from hy_core.errors import UsageError
from hy_core.imports import import_target
from hy_core.options import option

from hy_avatar.stages import stage_cache
from hy_avatar.stages.points import load_points
from hy_avatar.stages.stage_cache import CachingStage
from hy_avatar.video_segment import RATE, VideoSegment

if TYPE_CHECKING:
    from hy_avatar.speech import MelEncoder, WhisperSpeechEncoder

_STILL = 0.005  # distances between the eyes: less is the jitter of points

SyncScorer = Callable[[Path, "tuple[float, float] | None", "tuple[int, int, int, int] | None"], float]
"""From a file, a span and a crop to a score: SyncNet, as wrapped by a user who has its weights."""


class VoicePresence(Stage):
    """Drop clips in which nobody speaks for most of the time: by Silero's detector, or by loudness without it."""

    name = "voice-presence"

    @dataclass(frozen=True)
    class Options:
        """How much speech there must be."""

        least: float = option(0.3, help="Smallest share of time with speech.", minimum=0, maximum=1)
        detector: Literal["auto", "silence"] = option(
            "auto", help="Silero's detector if it is installed, or silence alone."
        )

    def found(self, record: ClipRecord) -> tuple[dict[str, Any], str | None]:
        """Find `voice_ratio`, the share of time in which somebody speaks."""
        from hy_core.media import vad

        is_used = self.options.detector == "auto" and vad.Silero.is_installed()
        speech = vad.detect_speech(VideoSegment.of(record).sound(), vad.Silero.load() if is_used else None)
        share = float(speech.mean()) if len(speech) else 0.0
        fields = {"voice_ratio": round(share, 4)}
        return fields, f"speech in {share:.0%} of the time" if share < self.options.least else None


class SpeechFeatures(CachingStage):
    """Hear a clip's speech once: a Whisper encoder's hidden states, or mel bands, 50 a second.

    What is kept is not cut for frames yet, so that it serves every frame rate and every part of the clip.
    """

    name = "speech-features"

    @dataclass(frozen=True)
    class Options:
        """What hears: as the `speech` of the avatar's config says."""

        cache: Path = option(help="Folder for the features.")
        encoder: Literal["whisper", "mel"] = option("whisper", help="Whisper, or plain mel bands.")
        whisper: Path | None = option(None, help="Folder of the Whisper model.", metavar="DIR")
        channels: int = option(80, help="Mel bands.", minimum=1, maximum=512)

    @cached_property
    def ears(self) -> WhisperSpeechEncoder | MelEncoder:
        """What hears."""
        from hy_avatar.config import Speech
        from hy_avatar.speech import speech_encoder

        options = self.options
        return speech_encoder(Speech(encoder=options.encoder, channels=options.channels), options.whisper)

    def found(self, record: ClipRecord) -> tuple[dict[str, Any], str | None]:
        """Find `speech`, a file with states [S, layers, channels], float16."""
        from hy_avatar.speech import states

        path = self.place(record)
        if self.kept(record, "speech", path):
            return {}, None
        heard, samples = states(VideoSegment.of(record).sound(), self.ears)
        if not samples:
            return {}, "no sound"
        stage_cache.write(path, states=heard.numpy(), samples=samples, encoder=self.options.encoder)
        return {"speech": str(path)}, None


def load_speech(path: Path | str) -> tuple[np.ndarray, int, str]:
    """States float16 [S, layers, channels], how many samples at 16 kHz they are of, and the encoder's name."""
    held = stage_cache.read(path, "states", "samples", "encoder")
    return held["states"], int(held["samples"]), str(held["encoder"])


class LipSync(Stage):
    """Measure how the mouth's opening follows the speech's loudness, or what a scorer says; drop what is too bad.

    Without a scorer it needs `points`. It is coarse: it tells dubbed clips and large shifts. A clip whose mouth or
    sound doesn't move can't be scored and is kept; its `sync_score` is null.
    """

    name = "lip-sync"

    @dataclass(frozen=True)
    class Options:
        """What is out of step."""

        least: float = option(0.0, help="Lowest score; without a scorer a correlation, -1 to 1.")
        reach: float = option(
            0.12, help="Seconds that sound and lips may be apart and still agree.", minimum=0, maximum=2
        )
        scorer: str | None = option(
            None, help="module:function of (path, span, crop) in place of the correlation."
        )

    def found(self, record: ClipRecord) -> tuple[dict[str, Any], str | None]:
        """Find `sync_score`, and without a scorer `sync_offset`, the seconds by which the sound is late."""
        segment, options = VideoSegment.of(record), self.options
        if options.scorer:
            score = float(import_target(options.scorer, "scorer")(segment.path, segment.span, segment.crop))
            return {"sync_score": round(score, 4)}, self._low(score)
        if "points" not in record.results:
            raise UsageError(f"{self.name} needs the record's 'points'", "run face-points before it")
        points, fps = load_points(record.result_file("points"))
        sound = np.concatenate([np.zeros(0, np.float32), *segment.sound()])
        seen = agreement(mouth_opening(points), loudness(sound, len(points), fps), fps, options.reach)
        if seen is None:
            return {"sync_score": None}, None
        score, offset = seen
        fields = {"sync_score": round(score, 4), "sync_offset": round(offset, 3)}
        return fields, self._low(score)

    def _low(self, score: float) -> str | None:
        least = self.options.least
        return f"score {score:.2f}, below {least:g}" if score < least else None


def mouth_opening(points: np.ndarray) -> np.ndarray:
    """How far the inner lips are apart [F], in distances between the eyes, from points [F, 68, 2]; NaN stays NaN."""
    apart = np.linalg.norm(points[:, 61:64].mean(1) - points[:, 65:68].mean(1), axis=1)
    eyes = np.linalg.norm(points[:, 42:48].mean(1) - points[:, 36:42].mean(1), axis=1)
    return apart / np.maximum(eyes, 1e-6)


def loudness(sound: np.ndarray, frames: int, fps: float) -> np.ndarray:
    """Root mean square [frames] of mono sound at 16 kHz around each frame: a window of two frames."""
    squares = np.concatenate([[0.0], np.cumsum(np.square(sound, dtype=np.float64))])
    middle = (np.arange(frames) + 0.5) / fps * RATE
    low, high = (np.clip(np.round(middle + side * RATE / fps).astype(int), 0, len(sound)) for side in (-1, 1))
    return np.sqrt((squares[high] - squares[low]) / max(round(2 * RATE / fps), 1))


def agreement(opening: np.ndarray, loud: np.ndarray, fps: float, reach: float) -> tuple[float, float] | None:
    """The best correlation of two paths [F] within `reach` seconds of shift, and that shift in seconds.

    Above 0: the sound is late. None if either is still, or the clip is too short (less than half a second).
    """
    best = None
    for shift in range(-round(reach * fps), round(reach * fps) + 1):
        one = opening[: len(opening) - shift] if shift >= 0 else opening[-shift:]
        other = loud[shift:] if shift >= 0 else loud[: len(loud) + shift]
        there = np.isfinite(one) & np.isfinite(other)
        one, other = one[there], other[there]
        if len(one) < fps / 2 or len(one) < 8 or one.std() < _STILL or other.std() < 1e-4:
            continue
        score = float(np.corrcoef(one, other)[0, 1])
        if best is None or (score, -abs(shift)) > (best[0], -abs(best[1])):
            best = score, shift
    return None if best is None else (best[0], best[1] / fps)
