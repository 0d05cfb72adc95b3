"""Sound in a temporary file, for passes over it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator

import numpy as np

_PIECE = 1 << 16


class TemporarySound:
    """Sound on disk that can be iterated several times: float32 [channels, n], in pieces."""

    def __init__(self, pieces: Iterable[np.ndarray] = ()) -> None:
        self.file = tempfile.TemporaryFile()
        self.channels = 0
        self.count = 0
        for piece in pieces:
            self.add(piece)

    def add(self, piece: np.ndarray) -> None:
        """Append samples, [channels, n] or [n]."""
        piece = np.atleast_2d(piece)
        self.channels = self.channels or piece.shape[0]
        self.file.write(np.ascontiguousarray(piece.T, np.float32).tobytes())
        self.count += piece.shape[1]

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield all samples from the first on."""
        width, at = 4 * max(self.channels, 1), 0
        while at < self.count:
            self.file.seek(at * width)
            data = np.frombuffer(self.file.read(_PIECE * width), np.float32)
            yield data.reshape(-1, self.channels).T
            at += len(data) // self.channels
