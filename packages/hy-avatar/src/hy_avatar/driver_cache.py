"""On-disk cache of driver features in training, shared by epochs, runs, stages and processes."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hy_core.weights import save_safetensors
from safetensors import safe_open

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    Row = dict[str, Tensor]

_MAX_BYTES = 1 << 30  # in memory, without a folder
_INTERVAL = 60.0  # seconds between two files: a killed run loses that much


class DriverCache:
    """Rows of named tensors by the key of their clip, which has no "/" in it.

    With a folder, rows are written atomically to safetensors files with unique names, which several processes may
    share. Rows that aren't written yet, and all rows without a folder, are in memory.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._rows: dict[str, Row] = {}
        self._bytes = 0
        self._files: dict[str, Any] = {}  # by file name
        self._written_rows: dict[str, tuple[Any, list[str]]] = {}  # file and tensor names of a key
        self._last_write = -_INTERVAL

    def find(self, keys: Iterable[str]) -> dict[str, Row]:
        """Return the cached rows of these keys."""
        keys = list(dict.fromkeys(keys))
        if any(key not in self._rows and key not in self._written_rows for key in keys):
            self._open_new_files()
        return {key: self._row(key) for key in keys if key in self._rows or key in self._written_rows}

    def _row(self, key: str) -> Row:
        if key in self._rows:
            return self._rows[key]
        file, names = self._written_rows[key]
        return {name: file.get_tensor(f"{key}/{name}") for name in names}

    def put(self, rows: Mapping[str, Row]) -> None:
        """Add rows; without a folder only up to 1 GiB in all."""
        for key, row in rows.items():
            size = sum(value.nbytes for value in row.values())
            if self.folder is not None or self._bytes + size <= _MAX_BYTES:
                self._rows[key] = row
                self._bytes += size
        if self.folder is not None and time.monotonic() - self._last_write >= _INTERVAL:
            self._write(self.folder)

    def _write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{uuid.uuid4().hex}.safetensors"
        tensors = {f"{key}/{name}": value for key, row in self._rows.items() for name, value in row.items()}
        save_safetensors(path, tensors)
        self._rows, self._bytes, self._last_write = {}, 0, time.monotonic()
        self._open_new_files()

    def _open_new_files(self) -> None:
        """Open the files that were added since."""
        if self.folder is None or not self.folder.is_dir():
            return
        for path in self.folder.glob("*.safetensors"):
            if path.name in self._files:
                continue
            file = self._files[path.name] = safe_open(path, "pt")
            for whole in file.keys():
                key, _, name = whole.partition("/")
                known, names = self._written_rows.setdefault(key, (file, []))
                if known is file:
                    names.append(name)


def fingerprint(facts: Any, module: Module) -> str:
    """Return a hash of `facts` (JSON types) and of a sample of a module's weights, 16 hex digits."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for weight in module.parameters():
        digest.update(weight.detach().flatten()[:8].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
