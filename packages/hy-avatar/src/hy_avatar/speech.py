"""Speech to features of video frames: a Whisper encoder's hidden states, windowed as the released model does it.

The sound is read in blocks and encoded in windows of 30 s, so that its length has no limit; for the first 29 s the
numbers are those of the released model, which reads one such window and no further (facts 2.4).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from hy_core.errors import MissingError
from torch import Tensor

from hy_avatar.sound import RATE

if TYPE_CHECKING:
    from transformers import WhisperFeatureExtractor
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    from hy_avatar.config import Speech

STEPS = 50
"""Hidden states a second: one for each 320 samples."""
_STEP = RATE // STEPS
SECONDS = 30
OVERLAP = 2
"""Seconds that neighbouring windows share; each is used up to the middle of it."""
WINDOW, BEFORE = 10, 4
"""Hidden states of a video frame, and how many of them are before its time."""


class WhisperSpeechEncoder:
    """A Whisper encoder: 30 s of sound to hidden states [1500, layers, channels], all layers."""

    def __init__(self, encoder: WhisperEncoder, extractor: WhisperFeatureExtractor | None = None) -> None:
        from transformers import WhisperFeatureExtractor

        self.encoder = encoder.eval().requires_grad_(False)
        self.extractor = extractor or WhisperFeatureExtractor(feature_size=encoder.config.num_mel_bins)

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> WhisperSpeechEncoder:
        """Load the encoder of a Whisper model's folder as transformers writes it. Nothing is fetched."""
        from hy_core.text.pretrained import load_strictly
        from transformers import WhisperFeatureExtractor, WhisperModel

        if not (folder / "config.json").is_file():
            raise MissingError(
                f"no Whisper model in {folder}", "fetch openai/whisper-tiny into a folder and name it"
            )
        model: Any = load_strictly(WhisperModel, folder, device, torch.float32)
        written = (folder / "preprocessor_config.json").is_file()
        return cls(model.encoder, WhisperFeatureExtractor.from_pretrained(folder) if written else None)

    @property
    def shape(self) -> tuple[int, int]:
        """Layers (the embedding counts as one) and channels."""
        return self.encoder.config.encoder_layers + 1, self.encoder.config.d_model

    @torch.no_grad()
    def encode(self, samples: np.ndarray) -> Tensor:
        """Encode at most 30 s of sound [count] at 16 kHz: hidden states [1500, layers, channels], float32, CPU."""
        mel = self.extractor(samples, sampling_rate=RATE, return_tensors="pt").input_features
        mel = mel.to(self.encoder.device, self.encoder.dtype)
        states = self.encoder(mel, output_hidden_states=True).hidden_states
        return torch.stack(states, 2)[0].float().cpu()


class MelEncoder:
    """The bands of Whisper's mel spectrogram, for adapters that were trained without an encoder.

    It needs no weights. Levels are relative to the loudest of a window of 30 s, as in Whisper.
    """

    def __init__(self, bands: int = 80) -> None:
        from transformers import WhisperFeatureExtractor

        self.extractor = WhisperFeatureExtractor(feature_size=bands)
        self.shape = 1, bands

    def encode(self, samples: np.ndarray) -> Tensor:
        """Encode at most 30 s of sound [count] at 16 kHz as bands [1500, 1, bands], float32: two frames make a step."""
        # The padding is silence, whose bands are constant: one step of it is computed and repeated.
        length = min(-(-len(samples) // _STEP) + 2, SECONDS * STEPS) * _STEP
        found = self.extractor(
            samples, sampling_rate=RATE, padding="max_length", max_length=length, return_tensors="pt"
        )
        mel = found.input_features[0]
        steps = mel.unflatten(1, (-1, 2)).mean(2).mT[:, None].float()
        return torch.cat([steps, steps[-1:].expand(SECONDS * STEPS - len(steps), -1, -1)])


def speech_encoder(config: Speech, folder: Path | None) -> WhisperSpeechEncoder | MelEncoder:
    """Return the encoder of a config: mel bands, or a folder's Whisper model; MissingError without a folder."""
    if config.encoder == "mel":
        return MelEncoder(config.channels)
    if folder is None:
        raise MissingError("no Whisper model to encode the speech", "name its folder: --avatar-whisper DIR")
    return WhisperSpeechEncoder.load(folder)


@dataclass(frozen=True)
class Span:
    """Frames of a clip: `count` frames at `fps` from frame `start` on."""

    count: int
    fps: float
    start: int = 0

    def first_step(self) -> np.ndarray:
        """Return each frame's first hidden state, int64 [count]; negative before the sound."""
        frames = np.arange(self.start, self.start + self.count)
        return np.round(frames * STEPS / self.fps).astype(np.int64) - BEFORE


def features(blocks: Iterable[np.ndarray], encoder: WhisperSpeechEncoder | MelEncoder, span: Span) -> Tensor:
    """Return the features of a span of frames: [count, 10, layers, channels], zeros for frames after the sound.

    `blocks` is one channel of sound at 16 kHz, piece by piece. A frame takes the ten hidden states around its moment:
    at 25 fps those from 2f-4 to 2f+5; what lies before the sound is zero.
    """
    first = span.first_step()
    found = torch.zeros(span.count, WINDOW, *encoder.shape)
    needed = int(first[-1]) + WINDOW
    index = torch.from_numpy(first)[:, None] + torch.arange(WINDOW)  # [count, 10]
    for start, states, samples in _states(blocks, encoder, int(max(first[0], 0)), needed):
        inside = (index >= start) & (index < start + len(states))
        found[inside] = states[(index - start)[inside]]
        if samples is not None:
            found[max(int(samples * span.fps / RATE) - span.start, 0) :] = 0
    return found


def states(blocks: Iterable[np.ndarray], encoder: WhisperSpeechEncoder | MelEncoder) -> tuple[Tensor, int]:
    """Return all hidden states of a sound [S, layers, channels], float16, and its number of samples: see `windowed`.

    They serve all parts and frame rates; empty for no sound.
    """
    found, samples = [torch.zeros(0, *encoder.shape, dtype=torch.float16)], 0
    for _, heard, whole in _states(blocks, encoder, 0, 1 << 62):
        found.append(heard.half())
        samples = samples if whole is None else whole
    return torch.cat(found)[: samples // _STEP + WINDOW], samples


def windowed(states: Tensor, samples: int, span: Span) -> Tensor:
    """Return the features of `features`, float32, from the hidden states of `states`.

    `states` are [steps, ...]; the result is [frames, 10, ...].
    """
    index = torch.from_numpy(span.first_step())[:, None] + torch.arange(WINDOW)  # [count, 10]
    inside = (index >= 0) & (index < len(states))
    found = torch.zeros(span.count, WINDOW, *states.shape[1:])
    found[inside] = states[index[inside]].float()
    found[max(int(samples * span.fps / RATE) - span.start, 0) :] = 0
    return found


def _states(
    blocks: Iterable[np.ndarray], encoder: WhisperSpeechEncoder | MelEncoder, begin: int, end: int
) -> Iterator[tuple[int, Tensor, int | None]]:
    """Hidden states from step `begin` to `end`, window by window: (first step, states, samples in all).

    They don't overlap. The number of samples comes with the last window, whose states extend past the sound, as in the
    released model.
    """
    hop, margin = SECONDS - OVERLAP, OVERLAP // 2
    low = 0
    for number, (samples, last) in enumerate(_windows(blocks, hop)):
        start = number * hop
        high = (start + SECONDS - (0 if last else margin)) * STEPS
        if low >= end:
            return
        if high > begin or last:
            whole = start * RATE + len(samples) if last else None
            yield low, encoder.encode(samples)[low - start * STEPS : high - start * STEPS], whole
        low = high


def _windows(blocks: Iterable[np.ndarray], hop: int) -> Iterator[tuple[np.ndarray, bool]]:
    """Cut a stream of sound into windows of 30 s that begin every `hop` seconds; True with the last one."""
    held, length = np.zeros(0, np.float32), SECONDS * RATE
    for block in blocks:
        held = np.concatenate([held, block])
        while len(held) > length:
            yield held[:length], False
            held = held[hop * RATE :]
    if len(held):
        yield held, True
