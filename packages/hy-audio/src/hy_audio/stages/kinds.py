"""What kind of sound a clip has: the paper's four classes, for each moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from hy_core.data import ClipRecord, Stage
from hy_core.errors import MissingError, UsageError
from hy_core.imports import import_target
from hy_core.media import timeline, vad
from hy_core.options import option

from hy_audio.loudness import rms_levels
from hy_audio.stages.heuristic import heuristic
from hy_audio.stages.presence import BELOW, QUIET

RATE = 16000
HOP = 0.5
"""Seconds of a moment that is classified."""
CLASSES = ("pure sound", "sound with speech", "sound with music", "pure music")

_WINDOW = 2.0  # seconds that a tagger hears of each moment
_SPEECH, _MUSIC = 0.5, 0.5  # probabilities

Tagger = Callable[[np.ndarray, int], "dict[str, np.ndarray]"]
"""From windows of mono sound, float32 [B, N] at a rate, to probabilities [B] of "speech", "music" and "sound" (a sound
that is neither), each present on its own."""


@dataclass(frozen=True)
class SegmentLabels:
    """What sounds in every half second of a clip, bool [T] each."""

    silent: np.ndarray
    speech: np.ndarray
    music: np.ndarray
    sound: np.ndarray


class SoundKind(Stage):
    """Classify every half second and name the clip's class; drop the classes that aren't wanted.

    Speech is found by Silero VAD; music and other sounds by a tagger: `heuristic`, which needs no weights and knows
    plain cases only, a folder with an audio classifier that transformers loads (such as the AST of AudioSet), or
    "module:function" of your own.
    """

    name = "sound-kind"

    @dataclass(frozen=True)
    class Options:
        """The tagger, and what is kept."""

        tagger: str = option(
            "heuristic", help="heuristic, folder of an AudioSet classifier, or module:function."
        )
        keep: list[str] = option((), help="Classes to keep; all if none is named.")
        least: float = option(
            0.1, help="Share of the sounding time from which on a kind counts.", minimum=0, maximum=1
        )

    def found(self, record: ClipRecord) -> tuple[dict[str, Any], str | None]:
        """Find `audio_class`, `speech_ratio`, `music_ratio` and `sound_ratio` of the sounding time."""
        unknown = set(self.options.keep) - set(CLASSES)
        if unknown:
            raise UsageError(f"no class {min(unknown)!r}", f"one of {', '.join(CLASSES)}")
        path, span = record.file, record.span
        extent = timeline.measure(path)
        if not extent.sounds:
            return {}, "no sound stream"
        sound = timeline.sound(path, RATE, 1, span, origin=extent.start)
        moments = classify(sound, tagger_of(self.options.tagger))
        kind, shares = overall(moments, self.options.least)
        fields = {"audio_class": kind, **{f"{one}_ratio": round(share, 4) for one, share in shares.items()}}
        if kind is None:
            return fields, "nothing sounds"
        keep = self.options.keep
        return fields, f"{kind}" if keep and kind not in keep else None


def tagger_of(name: str) -> Tagger:
    """The tagger of a name: heuristic, module:function, or the folder of a classifier. HyError if there is none."""
    if name == "heuristic":
        return heuristic
    return (
        import_target(name) if ":" in name and not name.startswith((".", "/")) else AudioSetTagger.load(name)
    )


def classify(
    pieces: Iterator[np.ndarray], tagger: Tagger, voice: Callable[[np.ndarray], np.ndarray] | None = None
) -> SegmentLabels:
    """Tell for every half second of mono pieces at 16 kHz what sounds in it.

    The tagger hears the 2 s that end with a moment; in the beginning, the first 2 s. `voice` gives the probability of
    speech for every 32 ms of [N] samples; Silero VAD if not given.
    """
    voice = voice or vad.Silero.load()
    hop, window = round(HOP * RATE), round(_WINDOW * RATE)
    level: list[float] = []
    speech: list[float] = []
    tags: list[dict[str, np.ndarray]] = []
    before = np.zeros(window - hop, np.float32)
    for part in _parts(pieces, 60 * hop):
        count = -(-len(part) // hop)
        padded = np.pad(part, (0, count * hop - len(part)))
        level += [float(rms_levels([row[None]], RATE).max()) for row in padded.reshape(count, hop)]
        chance = voice(padded)
        centres = (np.arange(len(chance)) + 0.5) * vad.CHUNK // hop
        speech += [float(chance[centres == index].max(initial=0)) for index in range(count)]
        whole = np.concatenate([before, padded])
        windows = np.lib.stride_tricks.sliding_window_view(whole, window)[::hop][:count].copy()
        early = window // hop - 1  # moments of the beginning, before which there is nothing
        if not tags and count > early:
            windows[:early] = windows[early]
        tags.append(tagger(windows, RATE))
        before = whole[len(whole) - len(before) :]
    joined = {
        kind: np.concatenate([tag[kind] for tag in tags]) if tags else np.zeros(0)
        for kind in ("music", "sound")
    }
    loud = np.asarray(level)
    quiet = loud < max(QUIET, float(np.quantile(loud, 0.95)) - BELOW) if len(loud) else np.zeros(0, bool)
    spoken = (np.asarray(speech) >= _SPEECH) & ~quiet
    return SegmentLabels(
        quiet, spoken, (joined["music"] >= _MUSIC) & ~quiet, (joined["sound"] >= _MUSIC) & ~quiet
    )


def overall(moments: SegmentLabels, least: float = 0.1) -> tuple[str | None, dict[str, float]]:
    """The class of a clip and the shares of its sounding time; None if nothing sounds.

    The paper's classes don't say what speech over music is: speech goes first, for it is the rarer wish. Pure
    music is music without other sounds.
    """
    sounding = int((~moments.silent).sum())
    if not sounding:
        return None, {"speech": 0.0, "music": 0.0, "sound": 0.0}
    shares = {name: float(getattr(moments, name).sum()) / sounding for name in ("speech", "music", "sound")}
    if shares["speech"] >= least:
        kind = "sound with speech"
    elif shares["music"] >= least:
        kind = "sound with music" if shares["sound"] >= least else "pure music"
    else:
        kind = "pure sound"
    return kind, shares


class AudioSetTagger:
    """An audio classifier of transformers whose labels are AudioSet's."""

    def __init__(self, network: Any, extractor: Any) -> None:
        self.network, self.extractor = network.eval(), extractor
        labels = {int(index): label for index, label in network.config.id2label.items()}
        self.kinds = {
            kind: [i for i, label in labels.items() if kind_of(label) == kind]
            for kind in ("speech", "music", "sound")
        }
        if not all(self.kinds.values()):
            raise UsageError(
                "the classifier's labels aren't AudioSet's", "it needs labels for speech, music and more"
            )

    @classmethod
    @cache
    def load(cls, folder: str) -> AudioSetTagger:
        """Load a folder; nothing is downloaded."""
        from pathlib import Path

        from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

        if not (Path(folder) / "config.json").is_file():
            raise MissingError(
                f"no classifier in {folder}", "a folder with config.json and model.safetensors"
            )
        network = AutoModelForAudioClassification.from_pretrained(
            folder, local_files_only=True, use_safetensors=True
        )
        return cls(network, AutoFeatureExtractor.from_pretrained(folder, local_files_only=True))

    def __call__(self, windows: np.ndarray, rate: int) -> dict[str, np.ndarray]:
        """Probabilities [B] of each kind in windows [B, N]: that of its likeliest label."""
        import torch

        if rate != self.extractor.sampling_rate:
            import soxr

            windows = soxr.resample(windows.T, rate, self.extractor.sampling_rate).T
        with torch.inference_mode():
            given = self.extractor(
                list(windows), sampling_rate=self.extractor.sampling_rate, return_tensors="pt"
            )
            chances = self.network(**given).logits.float().sigmoid().numpy()
        return {kind: chances[:, indices].max(1) for kind, indices in self.kinds.items()}


_SPOKEN = ("speech", "conversation", "narration", "babbling", "whispering", "shout", "singing", "chatter")
_MUSICAL = (
    "music",
    "song",
    "guitar",
    "piano",
    "drum",
    "violin",
    "orchestra",
    "choir",
    "jazz",
    "techno",
    "synthesizer",
)


def kind_of(label: str) -> str | None:
    """Which kind an AudioSet label is of; None for silence."""
    plain = label.lower()
    if plain == "silence":
        return None
    if any(word in plain for word in _MUSICAL):
        return "music"
    return "speech" if any(word in plain for word in _SPOKEN) else "sound"


def _parts(pieces: Iterator[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Mono parts [n] of `size` samples, the last with what is left."""
    held = np.zeros(0, np.float32)
    for piece in pieces:
        held = np.concatenate([held, np.atleast_2d(piece).mean(0).astype(np.float32)])
        while len(held) >= size:
            yield held[:size]
            held = held[size:]
    if len(held):
        yield held
