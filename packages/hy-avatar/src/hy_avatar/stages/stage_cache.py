"""Stages that keep what they find in files, and these files."""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from hy_core.data import ClipRecord, Stage
from hy_core.errors import HyError, MissingError
from hy_core.files import atomic

from hy_avatar.video_segment import VideoSegment

_MOST_BYTES = 4 << 30


class CachingStage(Stage):
    """A stage that keeps what it finds in files, in the folder that its option `cache` names."""

    def kept(self, record: ClipRecord, field: str, path: Path) -> bool:
        """Whether a record names this file already, and it is there: found in an earlier run with these options."""
        return record.results.get(field) == str(path) and path.is_file()

    def place(self, record: ClipRecord, suffix: str = ".npz") -> Path:
        """The file in the stage's `cache` folder for what it finds out of a clip: another one for other options.

        Its name depends on the file's name, size and time, on span, crop and options.
        """
        segment = VideoSegment.of(record)
        try:
            about = segment.path.stat()
        except OSError as problem:
            raise HyError(f"cannot open {segment.path}: {problem.strerror}") from problem
        options = {name: str(value) for name, value in asdict(self.options).items() if name != "cache"}
        facts = str(segment.path.resolve()), about.st_size, about.st_mtime_ns, segment.span, segment.crop
        digest = hashlib.sha256(json.dumps([facts, options], sort_keys=True).encode()).hexdigest()[:16]
        folder = Path(self.options.cache).resolve() / self.name
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{segment.path.stem[:60]}-{digest}{suffix}"


def write(path: Path, **arrays: Any) -> None:
    """Write arrays as NPZ, whole or not at all."""
    with atomic(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


def read(path: Path | str, *names: str) -> dict[str, np.ndarray]:
    """Read what `write` wrote; `HyError` for a file that isn't there, is damaged, or lacks one of the names.

    Arrays have any shape.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as box:
            if sum(part.file_size for part in box.infolist()) > _MOST_BYTES:
                raise HyError(f"{path} is too large to hold")
        with np.load(path, allow_pickle=False) as held:
            return {name: held[name] for name in names}
    except FileNotFoundError as problem:
        raise MissingError(f"no such file: {path}", "run the stage that writes it again") from problem
    except (KeyError, OSError, ValueError, EOFError, zipfile.BadZipFile) as problem:
        raise HyError(
            f"{path} is damaged ({str(problem)[:80]})", "run the stage that writes it again"
        ) from problem
