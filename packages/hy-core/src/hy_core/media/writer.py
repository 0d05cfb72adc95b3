"""What all writers of clips share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from hy_core.errors import HyError
from hy_core.files import Existing, Staging, writing
from hy_core.request import Sound

Comment = str | Callable[[int], str] | None
"""The text of a file's comment tag, or what makes it from the number of pictures (1 for a video)."""


class Writer(ABC):
    """A writer that takes frames as they come; the file appears at the end of the `with` block, or not at all.

    `HyError` if it can't be written, `UsageError` if there were no frames.
    """

    def __init__(
        self,
        path: Path,
        fps: float,
        sound: Sound | None = None,
        comment: Comment = None,
        existing: Existing = "replace",
    ) -> None:
        self.path, self.fps, self.sound, self._comment = Path(path), fps, sound, comment
        self.staging = Staging(existing)

    @property
    def files(self) -> list[Path]:
        """The files of the clip: one, or one for each frame; their final names once the `with` block has ended."""
        return self.staging.files

    def add(self, frames: Any) -> None:
        """Append frames: uint8 [F, H, W, 3] or one [H, W, 3], an array or a tensor on any device."""
        array = as_array(frames)
        with writing(self.path):
            self.put(array)

    @abstractmethod
    def put(self, frames: np.ndarray) -> None:
        """Take the next frames, uint8 [F, H, W, 3]."""

    @abstractmethod
    def finish(self) -> None:
        """Complete the temporary file."""

    def abort(self) -> None:  # noqa: B027
        """Close what is still open, after an error too."""

    def comment(self, pictures: int = 1) -> str | None:
        """The text of the comment tag."""
        return self._comment(pictures) if callable(self._comment) else self._comment

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                with writing(self.path):
                    self.finish()
                self.staging.commit()
        finally:
            self.abort()
            self.staging.discard()


def as_array(frames: Any) -> np.ndarray:
    """Convert an array, a tensor or one picture [H, W, 3] to uint8 [F, H, W, 3]; `HyError` for other kinds."""
    if hasattr(frames, "detach"):
        frames = frames.detach().cpu().numpy()
    array = np.asarray(frames)
    if array.ndim == 3:
        array = array[None]
    if array.ndim != 4 or array.shape[-1] != 3 or array.dtype != np.uint8:
        raise HyError(f"frames must be uint8 [F, H, W, 3], not {array.dtype} {list(array.shape)}")
    return array
