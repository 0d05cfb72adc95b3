"""Write a safetensors file tensor by tensor, so that no more than one of them is in memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from hy_core.errors import HyError
from hy_core.files import atomic

#: Names of dtypes in the format's header.
NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_ALIGNMENT = 8


@dataclass(frozen=True)
class Entry:
    """One tensor of the file: its name, dtype and shape."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """The size of the values in bytes."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


def write_safetensors(
    path: Path,
    entries: Iterable[Entry],
    tensors: Iterable[tuple[str, Tensor]],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write `tensors`, (name, values of any shape) in the order of `entries`, to a file that appears when complete.

    Raises HyError if the disk is full, ValueError if a tensor isn't what its entry announces.
    """
    entries = list(entries)
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for entry in entries:
        start, end = end, end + entry.nbytes
        header[entry.name] = {
            "dtype": NAMES[entry.dtype],
            "shape": list(entry.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    try:
        with atomic(path) as temporary, Path(temporary).open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            _write_values(file, entries, tensors)
    except OSError as error:
        raise HyError(f"cannot write {path}: {error.strerror}", "check the folder and the disk") from None


def _write_values(file: BinaryIO, entries: list[Entry], tensors: Iterable[tuple[str, Tensor]]) -> None:
    for entry, (name, tensor) in zip(entries, tensors, strict=True):
        if (name, tensor.dtype, tuple(tensor.shape)) != (entry.name, entry.dtype, entry.shape):
            raise ValueError(f"{name} {tensor.dtype} {list(tensor.shape)} was announced as {entry}")
        values = tensor.detach().cpu().contiguous().flatten()
        file.write(values.view(torch.uint8).numpy().data if values.numel() else b"")
