"""Hidden, locked folders that files are written in before they are moved to their names."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    _HAS_LOCKS = False
else:
    _HAS_LOCKS = True

_HIDDEN = re.compile(r"\.hy-[0-9a-f]{16}\.part")


class HiddenFolder:
    """A new, locked, hidden folder in `parent`; stale ones of the same user are removed first."""

    swept: set[tuple[str, int]] = set()
    """Folders, each with the process, that were looked through already."""

    def __init__(self, parent: Path) -> None:
        key = (os.path.abspath(parent), os.getpid())
        if key not in self.swept:
            self.swept.add(key)
            sweep(parent)
        while True:
            self.path = parent / f".hy-{secrets.token_hex(8)}.part"
            self.path.mkdir(mode=0o700)
            self._lock = _lock(self.path)
            if self._lock is not None:
                return
            # Another process swept it before it was locked: take a new one.
            with suppress(OSError):
                self.path.rmdir()

    def remove(self) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None and self._lock >= 0:
            os.close(self._lock)
        self._lock = None


def sweep(folder: Path) -> None:
    """Remove the hidden folders in `folder` that this user's killed processes left."""
    if not _HAS_LOCKS:
        return
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if not (_HIDDEN.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)):
                continue
            if entry.stat(follow_symlinks=False).st_uid != os.geteuid():
                continue
            lock = _lock(Path(entry.path))
            if lock is not None and lock >= 0:  # not where the file system has no locks
                shutil.rmtree(entry.path, ignore_errors=True)
                os.close(lock)


def _lock(folder: Path) -> int | None:
    """Lock a folder: its descriptor, -1 where folders can't be locked, None if another process has or removed it."""
    if not _HAS_LOCKS:
        return -1
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        os.close(descriptor)
        return -1
    if not folder.exists():
        os.close(descriptor)
        return None
    return descriptor
