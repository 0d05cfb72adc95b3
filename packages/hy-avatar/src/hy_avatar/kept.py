"""What was found out of clips in training, kept in a folder's files: for the next epoch, run, stage or process."""

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

    Row = Mapping[str, Tensor]

_MOST = 1 << 30  # bytes that are kept in memory where there is no folder
_EVERY = 60.0  # seconds between two files: what a run that is killed has to find out again


class Kept:
    """Rows of named tensors by the key of their clip, which has no "/" in it.

    With a folder they are in safetensors files there, written whole or not at all, each under a name of its own:
    several processes may share the folder, and each sees what others have written. Rows that aren't written yet, and
    all rows without a folder, are in memory.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._held: dict[str, Row] = {}
        self._bytes = 0
        self._files: dict[str, Any] = {}  # open files by their names
        self._at: dict[str, tuple[Any, list[str]]] = {}  # the file and the names of the tensors of a key
        self._written = -_EVERY

    def find(self, keys: Iterable[str]) -> dict[str, Row]:
        """The rows of those keys that somebody has found out."""
        keys = list(dict.fromkeys(keys))
        if any(key not in self._held and key not in self._at for key in keys):
            self._look()
        return {key: self._row(key) for key in keys if key in self._held or key in self._at}

    def _row(self, key: str) -> Row:
        if key in self._held:
            return self._held[key]
        file, names = self._at[key]
        return {name: file.get_tensor(f"{key}/{name}") for name in names}

    def put(self, rows: Mapping[str, Row]) -> None:
        """Keep rows; without a folder only as many as fit."""
        for key, row in rows.items():
            size = sum(value.nbytes for value in row.values())
            if self.folder is not None or self._bytes + size <= _MOST:
                self._held[key] = row
                self._bytes += size
        if self.folder is not None and time.monotonic() - self._written >= _EVERY:
            self._write(self.folder)

    def _write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{uuid.uuid4().hex}.safetensors"
        tensors = {f"{key}/{name}": value for key, row in self._held.items() for name, value in row.items()}
        save_safetensors(path, tensors)
        self._held, self._bytes, self._written = {}, 0, time.monotonic()
        self._look()

    def _look(self) -> None:
        """Open the files that weren't there before."""
        if self.folder is None or not self.folder.is_dir():
            return
        for path in self.folder.glob("*.safetensors"):
            if path.name in self._files:
                continue
            file = self._files[path.name] = safe_open(path, "pt")
            for whole in file.keys():
                key, _, name = whole.partition("/")
                known, names = self._at.setdefault(key, (file, []))
                if known is file:
                    names.append(name)


def fingerprint(facts: Any, module: Module) -> str:
    """A folder's name for what depends on `facts` (JSON types) and on a module's weights, of which a sample is read."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for weight in module.parameters():
        digest.update(weight.detach().flatten()[:8].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
