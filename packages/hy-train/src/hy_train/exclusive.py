"""One process at a time in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    _HAS_LOCKS = False
else:
    _HAS_LOCKS = True


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Wait until no other process is in such a block for this folder, then enter it.

    So of several processes that are started together the first encodes, and the others find its caches filled.
    """
    if not _HAS_LOCKS:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield  # the lock ends with the file
