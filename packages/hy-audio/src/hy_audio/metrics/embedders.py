"""Embeddings of sounds to measure distances in: each a function from a sound to features and class logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from hy_core.errors import MissingError, UsageError
from hy_core.imports import import_target


@dataclass(frozen=True)
class Embedding:
    """What an embedder makes of one sound: features [D], and logits [K] if it is a classifier."""

    features: np.ndarray
    logits: np.ndarray | None = None


class Embedder(Protocol):
    """`rate` is what it wants to hear; a text tower, if it has one, is `texts(captions) -> [N, D]`."""

    rate: int

    def __call__(self, samples: np.ndarray) -> Embedding:
        """Embed mono samples, float32 [N] at `rate` Hz."""
        ...


class MelStatistics:
    """Mean and deviation of log-mel bands: no weights, so that it runs anywhere.

    Its Frechet distance compares runs with one another; it is none of the published ones.
    """

    rate = 16000

    def __call__(self, samples: np.ndarray) -> Embedding:
        """Features [128]."""
        import librosa

        wave = np.pad(samples, (0, max(1024 - len(samples), 0)))
        mel = librosa.feature.melspectrogram(
            y=wave, sr=self.rate, n_fft=1024, hop_length=256, n_mels=64, fmax=8000, power=1.0
        )
        level = np.log(np.maximum(mel, 1e-5))
        return Embedding(np.concatenate([level.mean(1), level.std(1)]))


class Clap:
    """A CLAP model of transformers: features of the sound tower, and of the text tower for the CLAP score."""

    def __init__(self, network: Any, processor: Any) -> None:
        self.network, self.processor = network.eval(), processor
        self.rate = processor.feature_extractor.sampling_rate

    @classmethod
    @cache
    def load(cls, folder: str) -> Clap:
        """Load a folder; nothing is downloaded."""
        from transformers import ClapModel, ClapProcessor

        check(folder)
        network = ClapModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        return cls(network, ClapProcessor.from_pretrained(folder, local_files_only=True))

    def __call__(self, samples: np.ndarray) -> Embedding:
        """Features [projection]."""
        import torch

        extract = self.processor.feature_extractor
        with torch.inference_mode():
            # Its extractor cuts long sounds at random places.
            state = np.random.get_state()
            np.random.seed(0)
            try:
                given = extract(samples, sampling_rate=self.rate, return_tensors="pt")
            finally:
                np.random.set_state(state)
            found = self.network.get_audio_features(**given)
        return Embedding(_pooled(found)[0])

    def texts(self, captions: Sequence[str]) -> np.ndarray:
        """Features [N, projection] of captions."""
        import torch

        with torch.inference_mode():
            given = self.processor.tokenizer(
                list(captions), padding=True, truncation=True, return_tensors="pt"
            )
            return _pooled(self.network.get_text_features(**given))


class Classifier:
    """An audio classifier of transformers: its logits, and the last hidden states' mean as features."""

    def __init__(self, network: Any, extractor: Any) -> None:
        self.network, self.extractor, self.rate = network.eval(), extractor, extractor.sampling_rate

    @classmethod
    @cache
    def load(cls, folder: str) -> Classifier:
        """Load a folder; nothing is downloaded."""
        from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

        check(folder)
        network = AutoModelForAudioClassification.from_pretrained(
            folder, local_files_only=True, use_safetensors=True
        )
        return cls(network, AutoFeatureExtractor.from_pretrained(folder, local_files_only=True))

    def __call__(self, samples: np.ndarray) -> Embedding:
        """Features [D] and logits [K]."""
        import torch

        with torch.inference_mode():
            given = self.extractor(samples, sampling_rate=self.rate, return_tensors="pt")
            found = self.network(**given, output_hidden_states=True)
        return Embedding(found.hidden_states[-1][0].float().mean(0).numpy(), found.logits[0].float().numpy())


def embedder(name: str) -> Embedder:
    """The embedder of a name: mel, clap:FOLDER, classifier:FOLDER, or module:attribute of one of your own."""
    kind, _, rest = name.partition(":")
    if name == "mel":
        return MelStatistics()
    if kind in ("clap", "classifier") and rest:
        return (Clap if kind == "clap" else Classifier).load(rest)
    if not rest:
        raise UsageError(f"no embedder {name!r}", "mel, clap:FOLDER, classifier:FOLDER or module:attribute")
    found = import_target(name)
    found = found() if isinstance(found, type) else found
    if not callable(found) or not isinstance(getattr(found, "rate", None), int):
        raise UsageError(f"{name} is no embedder", "it needs a rate and takes samples")
    return found


def check(folder: str) -> None:
    """Raise `MissingError` if a folder holds no model."""
    if not (Path(folder) / "config.json").is_file():
        raise MissingError(f"no model in {folder}", "a folder with config.json and model.safetensors")


def _pooled(found: Any) -> np.ndarray:
    """Features as array, from a tensor or from the output object of transformers 5."""
    found = getattr(found, "pooler_output", found)
    return found.float().numpy()
