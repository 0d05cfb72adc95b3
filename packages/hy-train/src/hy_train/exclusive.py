"""One process at a time in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hy_core.errors import UsageError

try:
    import fcntl
except ImportError:  # Windows
    _HAS_LOCKS = False
else:
    _HAS_LOCKS = True


@contextmanager
def exclusive(folder: Path, wait: bool = True, name: str = ".lock") -> Iterator[None]:
    """Enter the block when no other process is in one for this folder and name.

    So of several processes that are started together the first encodes, and the others find its caches filled. Without
    `wait`, `UsageError` if another process is there; processes of one run count as one, that of the first.
    """
    if not _HAS_LOCKS or (not wait and os.environ.get("LOCAL_RANK", "0") != "0"):
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / name, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise UsageError(
                f"another process trains in {folder}", "wait for it, or choose another --out"
            ) from None
        yield  # the lock ends with the file
