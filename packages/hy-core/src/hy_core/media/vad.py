"""Voice activity detection: where somebody speaks in a sound at 16 kHz, in chunks of 512 samples (32 ms).

    detector = Silero.load() if Silero.is_installed() else None
    speech = detect_speech(timeline.sound(path, vad.RATE), detector)    bool [chunks]
    frame_speech = speech_of_frames(speech, frames=129, fps=25)         bool [frames]

Silero VAD (package silero-vad, MIT) tells speech from music and noise. Only its ONNX file is used: the package isn't
imported, because it imports torchaudio and sets torch's threads. Without it `detect_speech` tells sound from silence.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hy_core.errors import MissingError

RATE = 16000
"""Samples a second of all sound here."""
CHUNK = 512
"""Samples that are classified at a time: 32 ms."""
SILENCE_RMS = 1e-3
"""Root mean square below which a chunk is silence: 60 dB below full scale."""
SPEECH_START, SPEECH_END = 0.5, 0.35
"""Probabilities at which speech starts, and below which it ends."""
PADDING = 0.3
"""Seconds before and after speech that count as speech: words fade in and out."""

_CONTEXT = 64  # samples before a chunk that the network takes with it
_STATE = (2, 1, 128)  # of its recurrent layers


class Silero:
    """Silero VAD; stateless between calls, so that one object serves all sounds and threads."""

    def __init__(self, session: Any) -> None:
        """`session`: an `onnxruntime.InferenceSession` of the network."""
        self.session = session

    @classmethod
    def is_installed(cls) -> bool:
        """Whether silero-vad and onnxruntime are installed."""
        return _model_path() is not None

    @classmethod
    def load(cls) -> Silero:
        """Load the network on one thread of the CPU; `MissingError` if a package is missing."""
        path = _model_path()
        if path is None:
            raise MissingError(
                "telling speech from other sound needs silero-vad and onnxruntime",
                'pip install "hy-core[vad]"',
            )
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        return cls(onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]))

    def stream(self) -> Callable[[np.ndarray], float]:
        """Return a classifier of the consecutive chunks of one sound.

        It takes float32 [512] in [-1, 1] and returns the probability of speech, 0 to 1.
        """
        state, context = np.zeros(_STATE, np.float32), np.zeros(_CONTEXT, np.float32)
        rate = np.array(RATE, np.int64)

        def classify(chunk: np.ndarray) -> float:
            nonlocal state, context
            samples = np.concatenate([context, chunk])[None]
            output, state = self.session.run(None, {"input": samples, "state": state, "sr": rate})
            context = chunk[-_CONTEXT:]
            return float(output[0, 0])

        return classify

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """Return the probability of speech of each chunk of samples [N]: float32 [ceil(N / 512)]."""
        return np.fromiter(map(self.stream(), chunked([samples])), np.float32)


def detect_speech(pieces: Iterable[np.ndarray], detector: Silero | None = None) -> np.ndarray:
    """Return whether somebody speaks in each chunk: bool [ceil(N / 512)].

    `pieces`: the sound in pieces, float [n] or [1, n] in [-1, 1] at 16 kHz. Speech starts at a probability of 0.5, ends
    below 0.35, and is widened by 0.3 s on both sides; chunks below -60 dBFS are silence. Without a `detector` all other
    chunks are speech.
    """
    classify = detector.stream() if detector is not None else None
    found: list[bool] = []
    speaking = False
    for chunk in chunked(pieces):
        chance = classify(chunk) if classify else 1.0  # silent ones too: the network has a memory
        loud = float(np.sqrt(np.mean(np.square(chunk, dtype=np.float64)))) > SILENCE_RMS
        speaking = loud and chance > (SPEECH_END if speaking else SPEECH_START)
        found.append(speaking)
    return _widened(np.array(found, bool), round(PADDING * RATE / CHUNK))


def speech_of_frames(speech: np.ndarray, frames: int, fps: float, start_frame: int = 0) -> np.ndarray:
    """Return whether somebody speaks at the middle of each frame of a clip: bool [frames].

    `speech`: bool [chunks] of `detect_speech`, whose first sample is at frame 0. Frames after its end are False.
    """
    middle = (np.arange(start_frame, start_frame + frames) + 0.5) / fps
    chunk = (middle * RATE / CHUNK).astype(np.int64)
    inside = chunk < len(speech)
    return inside & speech[np.minimum(chunk, len(speech) - 1)] if len(speech) else inside


def chunked(pieces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield pieces [n] or [1, n] of a sound as chunks, float32 [512], the last one padded with zeros."""
    rest = np.zeros(0, np.float32)
    for piece in pieces:
        rest = np.concatenate([rest, piece.reshape(-1).astype(np.float32, copy=False)])
        whole = len(rest) // CHUNK * CHUNK
        yield from rest[:whole].reshape(-1, CHUNK)
        rest = rest[whole:]
    if len(rest):
        yield np.pad(rest, (0, CHUNK - len(rest)))


def _model_path() -> Path | None:
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    package = importlib.util.find_spec("silero_vad")
    path = Path(package.origin).parent / "data" / "silero_vad.onnx" if package and package.origin else None
    return path if path is not None and path.is_file() else None


def _widened(found: np.ndarray, by: int) -> np.ndarray:
    """True within `by` chunks of every True."""
    if not found.any() or not by:
        return found
    return np.convolve(found.astype(np.int64), np.ones(2 * by + 1, np.int64), "same")[: len(found)] > 0
