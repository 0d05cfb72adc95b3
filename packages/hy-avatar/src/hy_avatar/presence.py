"""Where somebody speaks: silence and music get no say in how a mouth moves.

Speech is found by Silero's detector (package silero-vad, MIT; its ONNX file is read, the package isn't imported), which
tells it from music and noise. Without it only silence is told, by loudness.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from hy_core.errors import MissingError

from hy_avatar.sound import RATE

CHUNK, CONTEXT = 512, 64
"""Samples that the detector takes at a time, and how many before them it wants to see."""
QUIET = 1e-3
"""Root mean square below which a chunk is silence: 60 dB below full scale."""
SPEECH, RELEASE = 0.5, 0.35
"""The probability at which speech begins, and below which it ends."""
HANGOVER = 0.3
"""Seconds that stay speech around it: words fade in and out, and the mouth moves before it sounds."""


def available() -> Path | None:
    """The detector's file, if it and what runs it are installed."""
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    found = importlib.util.find_spec("silero_vad")
    path = Path(found.origin).parent / "data" / "silero_vad.onnx" if found and found.origin else None
    return path if path is not None and path.is_file() else None


def detector() -> Any:
    """A runtime session of Silero's detector; MissingError if it isn't there."""
    path = available()
    if path is None:
        raise MissingError(
            "telling speech from music needs onnxruntime and silero-vad", 'pip install "hy-avatar[voice]"'
        )
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def spoken(blocks: Iterable[np.ndarray], session: Any = None) -> np.ndarray:
    """Whether somebody speaks in each chunk of 512 samples of a sound at 16 kHz: bool [chunks].

    `session` is a `detector`; without one everything but silence counts as speech.
    """
    said, state, before = [], np.zeros((2, 1, 128), np.float32), np.zeros(CONTEXT, np.float32)
    speaking = False
    for chunk in _chunks(blocks):
        loud = float(np.sqrt(np.mean(np.square(chunk, dtype=np.float64)))) > QUIET
        if session is None:
            speaking = loud
        else:
            given = np.concatenate([before, chunk])[None]
            rate = np.array(RATE, np.int64)
            out, state = session.run(None, {"input": given, "state": state, "sr": rate})
            before = chunk[-CONTEXT:]
            speaking = loud and float(out[0, 0]) > (RELEASE if speaking else SPEECH)
        said.append(speaking)
    return _widened(np.array(said, bool), round(HANGOVER * RATE / CHUNK))


def at_frames(said: np.ndarray, frames: int, fps: float, start: int = 0) -> np.ndarray:
    """Whether somebody speaks in each frame of a clip; not behind the end of the sound: bool [frames]."""
    chunk = ((np.arange(start, start + frames) + 0.5) / fps * RATE / CHUNK).astype(np.int64)
    inside = chunk < len(said)
    return inside & said[np.minimum(chunk, max(len(said) - 1, 0))] if len(said) else inside


def _chunks(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Cut a stream into chunks, the last filled up with zeros."""
    held = np.zeros(0, np.float32)
    for block in blocks:
        held = np.concatenate([held, block.astype(np.float32, copy=False)])
        whole = len(held) // CHUNK * CHUNK
        yield from held[:whole].reshape(-1, CHUNK)
        held = held[whole:]
    if len(held):
        yield np.pad(held, (0, CHUNK - len(held)))


def _widened(said: np.ndarray, by: int) -> np.ndarray:
    """True for everything within so many chunks of something true."""
    if not said.any() or not by:
        return said
    return np.convolve(said.astype(np.int64), np.ones(2 * by + 1, np.int64), "same")[: len(said)] > 0
