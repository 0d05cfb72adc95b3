"""A store of tensors by key: sharded safetensors with an index.

    NAME.safetensors    a shard; tensors are named KEY.NAME; its metadata holds the CRC-32 of each
    index.sqlite        which shard holds a key; made anew from the shards' headers where it is missing or damaged

A shard appears when it is complete and never changes, so that a process may be killed at any moment and several may
write at once: what is in no shard is missing, and what two wrote is there twice, with one of them used.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from hy_core.errors import HyError, MissingError
from hy_core.weights import save_safetensors

_OPEN = 64  # shards that are held open
_ASKED = 500  # keys of one query


class TensorStore:
    """Tensors by key in a folder. An instance can be sent to other processes."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._process = 0
        self._index: sqlite3.Connection | None = None
        self._shards: OrderedDict[str, Any] = OrderedDict()
        self._crc: dict[str, dict[str, int]] = {}

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Return the keys that the store doesn't hold, each once, in order."""
        wanted = list(dict.fromkeys(keys))
        held: set[str] = set()
        for first in range(0, len(wanted), _ASKED):
            part = wanted[first : first + _ASKED]
            marks = ",".join("?" * len(part))
            held |= {
                key for (key,) in self._open().execute(f"SELECT key FROM keys WHERE key IN ({marks})", part)
            }
        return [key for key in wanted if key not in held]

    def add(self, items: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Write items, tensors of any shape by name for each key, as one shard."""
        if not items:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"{key}.{name}": one for key, item in items.items() for name, one in item.items()}
        name = hashlib.sha256("".join(sorted(items)).encode()).hexdigest()[:16]
        crc = {key: _crc(tensor) for key, tensor in tensors.items()}
        save_safetensors(self.folder / f"{name}.safetensors", tensors, {"crc32": json.dumps(crc)})
        self._enter(name, items)

    def get(self, key: str) -> dict[str, Tensor]:
        """Return the tensors of a key by name, of any shape.

        `MissingError` for a key that isn't there, `HyError` for a shard that can't be read or whose bytes have changed.
        """
        row = self._open().execute("SELECT shard FROM keys WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise MissingError(f"{self.folder} has no {key}", "fill the cache: hy data cache, or hy train")
        path = self.folder / f"{row[0]}.safetensors"
        try:
            shard = self._shard(row[0])
            crc = self._crc[row[0]]
            tensors = {n: shard.get_tensor(n) for n in crc if n.startswith(f"{key}.")}
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            raise _damaged(path, str(error)) from None
        for name, tensor in tensors.items():
            if _crc(tensor) != crc[name]:
                raise _damaged(path, "its bytes have changed")
        return {name.removeprefix(f"{key}."): tensor for name, tensor in tensors.items()}

    def check(self, every_byte: bool = False) -> list[str]:
        """Remove shards that can't be read, so that their keys are missing; return a line about each.

        Headers and sizes are checked, with `every_byte` the checksums of all tensors, too.
        """
        lines = []
        for path in sorted(self.folder.glob("*.safetensors")):
            try:
                with safe_open(path, "pt") as shard:
                    crc = _checksums(shard)
                    if every_byte and any(
                        _crc(shard.get_tensor(name)) != value for name, value in crc.items()
                    ):
                        raise ValueError("its bytes have changed")
            except (SafetensorError, OSError, ValueError) as error:
                lines.append(f"{path} is damaged ({_line(error)}): what it held is computed again")
                self._shards.pop(path.stem, None)
                path.unlink(missing_ok=True)
                with self._open() as index:
                    index.execute("DELETE FROM keys WHERE shard = ?", (path.stem,))
                    index.execute("DELETE FROM shards WHERE name = ?", (path.stem,))
        return lines

    def close(self) -> None:
        """Close the index and all shards."""
        if self._index is not None and self._process == os.getpid():
            self._index.close()
        self._index = None
        self._shards.clear()
        self._crc.clear()

    def _shard(self, name: str) -> Any:
        if name not in self._shards:
            shard = safe_open(self.folder / f"{name}.safetensors", "pt")
            self._crc[name] = _checksums(shard)
            self._shards[name] = shard
            if len(self._shards) > _OPEN:
                self._crc.pop(self._shards.popitem(last=False)[0])
        self._shards.move_to_end(name)
        return self._shards[name]

    def _open(self) -> sqlite3.Connection:
        """The index, with all shards that are there; each process opens its own."""
        if self._index is None or self._process != os.getpid():
            self._index, self._process = None, os.getpid()
            self._shards, self._crc = OrderedDict(), {}
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / "index.sqlite"
            try:
                self._index = self._connect(path)
            except sqlite3.DatabaseError:
                path.unlink(missing_ok=True)
                self._index = self._connect(path)
        return self._index

    def _connect(self, path: Path) -> sqlite3.Connection:
        index = sqlite3.connect(path, timeout=120)
        index.execute("CREATE TABLE IF NOT EXISTS shards (name TEXT PRIMARY KEY)")
        index.execute(
            "CREATE TABLE IF NOT EXISTS keys (key TEXT PRIMARY KEY, shard TEXT NOT NULL) WITHOUT ROWID"
        )
        index.execute("CREATE INDEX IF NOT EXISTS by_shard ON keys (shard)")
        known = {name for (name,) in index.execute("SELECT name FROM shards")}
        there = {one.stem for one in self.folder.glob("*.safetensors")}
        with index:
            for name in known - there:
                index.execute("DELETE FROM keys WHERE shard = ?", (name,))
                index.execute("DELETE FROM shards WHERE name = ?", (name,))
            for name in sorted(there - known):
                try:
                    with safe_open(self.folder / f"{name}.safetensors", "pt") as shard:
                        keys = {one.split(".")[0] for one in _checksums(shard)}
                except (SafetensorError, OSError, ValueError):
                    continue  # `check` tells and removes it
                _insert(index, name, keys)
        return index

    def _enter(self, name: str, keys: Iterable[str]) -> None:
        with self._open() as index:
            _insert(index, name, keys)

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"])  # type: ignore[misc]


def _insert(index: sqlite3.Connection, name: str, keys: Iterable[str]) -> None:
    index.execute("INSERT OR IGNORE INTO shards VALUES (?)", (name,))
    index.executemany("INSERT OR REPLACE INTO keys VALUES (?, ?)", [(key, name) for key in keys])


def _checksums(shard: Any) -> dict[str, int]:
    crc = json.loads((shard.metadata() or {}).get("crc32", "null"))
    if not isinstance(crc, dict) or crc.keys() != set(shard.keys()):
        raise ValueError("it is no shard of a cache")
    return crc


def _crc(tensor: Tensor) -> int:
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return zlib.crc32(flat.view(torch.uint8).numpy().data) if flat.numel() else 0


def _damaged(path: Path, why: str) -> HyError:
    return HyError(
        f"{path} is damaged ({' '.join(why.split())[:80]})",
        "remove it: what it held is computed again",
    )


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:80]
