"""NPZ and NPY files of arrays, read as untrusted input: bounded in memory, without pickles."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from hy_core.errors import HyError, MissingError
from hy_core.files import atomic

MAX_BYTES, MAX_MASK_BYTES = 80 << 20, 256 << 20
"""Of the arrays in a file that are read at once; a file may always have arrays of four times its own size."""
_DAMAGE = (
    *(OSError, ValueError, TypeError, KeyError, IndexError, EOFError, SyntaxError, RuntimeError),
    *(OverflowError, MemoryError, NotImplementedError, zipfile.BadZipFile, zlib.error),
)


def write(path: Path, **arrays: Any) -> None:
    """Write arrays as compressed NPZ, atomically."""
    with atomic(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


def read(
    path: Path | str, required: tuple[str, ...] = (), hint: str | None = None, max_bytes: int = MAX_BYTES
) -> dict[str, np.ndarray]:
    """Return the arrays of an NPZ file by name, or of an NPY file under the name "array".

    MissingError without a file; HyError for one that is damaged, unpacks to more than `max_bytes` and four times its
    size, or lacks one of the `required` names. `hint` is added to these errors.

    Arrays have any shape.
    """
    path = Path(path)
    try:
        most = max(max_bytes, 4 * path.stat().st_size)
        if path.suffix.lower() == ".npy":
            held = np.load(path, allow_pickle=False, mmap_mode="r")
            if held.nbytes > most:
                raise HyError(f"{path} is too large: {_megabytes(held.nbytes)} of arrays", hint)
            return {"array": np.array(held)}
        found = _read_zip(path, most, hint)
    except FileNotFoundError:
        raise MissingError(f"no such file: {path}", hint) from None
    except _DAMAGE as problem:
        words = " ".join(str(problem).split())[:80] or type(problem).__name__
        raise HyError(f"{str(path)!r} is damaged or no NPZ file ({words})", hint) from None
    if missing := [name for name in required if name not in found]:
        raise HyError(f"{path} is damaged: it has no array {missing[0]!r}", hint)
    return found


def _read_zip(path: Path, most: int, hint: str | None) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(path) as archive:
        size = sum(part.file_size for part in archive.infolist())
        if size > most:
            raise HyError(f"{path} is too large: {_megabytes(size)} of arrays", hint)
        for part in archive.infolist():
            with archive.open(part) as file:
                _check_header(file, part.file_size)
    with np.load(path, allow_pickle=False) as held:
        return {name: held[name] for name in held.files}


def _check_header(file: Any, size: int) -> None:
    """Raise ValueError for an array that states more bytes than are stored: numpy would allocate them."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if math.prod(shape) * dtype.itemsize > size or not dtype.itemsize:
        raise ValueError(f"an array of {shape} in {size} bytes")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"


def scalar(arrays: Mapping[str, np.ndarray], name: str, path: Path | str) -> float:
    """Return a number of an NPZ file; HyError for one that isn't a single finite number.

    Arrays have any shape; the one named must hold a scalar.
    """
    try:
        value = float(arrays[name])
    except (TypeError, ValueError, KeyError):
        value = math.nan
    if not math.isfinite(value):
        raise HyError(f"{path} is damaged: {name} is no number")
    return value
