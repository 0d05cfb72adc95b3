"""Read files safely, and write them so that each appears under its name complete, or not at all.

`atomic` writes one file, `Staging` several that belong together; `write_bytes`, `write_text` and `write_json` write
values. All work in a hidden folder `.hy-<16 hex digits>.part` beside the target: its name is unpredictable, it is
created exclusively and readable by its owner alone, and the files in it have their final names, so that no name is
too long that isn't too long itself. At the end each file is flushed to the disk, then moved, then its folder is
flushed.

A process that is killed leaves its hidden folder behind. The next one of the same user that writes into the same
place removes it: every live folder is locked by its process, and the lock ends with the process.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal

from hy_core.errors import HyError, MissingError, UsageError
from hy_core.hidden_folder import HiddenFolder

Existing = Literal["replace", "number", "refuse"]
"""What to do with a file that has the name already: replace it, take the next free of name-2, name-3 and so on, or
raise `HyError`. The last two are exclusive: of two processes only one gets a name."""

_STORAGE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
_NAME_BYTES = 255


class Staging:
    """Files that appear together at the end of a `with` block, or not at all if it raises.

    Within the block write to the paths that `file` returns. `HyError` if a file can't be written. A process that is
    killed while it moves several files leaves some of them, but never the first: it is moved last, and an older file
    of its name is removed before any is moved. So the first file proves that the set is complete.
    """

    def __init__(self, existing: Existing = "replace") -> None:
        self.existing = existing
        self.files: list[Path] = []
        """Final paths, in the order of `file`; after the block those that were written."""
        self._staged: list[Path] = []
        self._folders: dict[Path, HiddenFolder] = {}

    def file(self, final: Path | str) -> Path:
        """Return the path to write to for what becomes `final`; missing folders are created."""
        final = Path(final)
        folder = final.parent
        if folder not in self._folders:
            with writing(final):
                folder.mkdir(parents=True, exist_ok=True)
                self._folders[folder] = HiddenFolder(folder)
        staged = self._folders[folder].path / final.name
        self.files.append(final)
        self._staged.append(staged)
        return staged

    def commit(self) -> None:
        """Flush and move the files; they are there when this returns."""
        order = range(len(self.files))
        if len(order) > 1 and self.existing == "refuse" and os.path.lexists(self.files[0]):
            raise HyError(f"{self.files[0]} exists", "remove it, or choose another name")
        for index in order:
            with writing(self.files[index]):
                flush(self._staged[index])
        if len(order) > 1 and self.existing == "replace":
            with writing(self.files[0]):
                self.files[0].unlink(missing_ok=True)
        for index in [*order[1:], *order[:1]]:
            with writing(self.files[index]):
                # What is left of a set without its first file was never complete.
                existing = "replace" if index and self.existing == "refuse" else self.existing
                self.files[index] = move(self._staged[index], self.files[index], existing)
        for folder in self._folders:
            flush(folder)
        self.discard()

    def discard(self) -> None:
        """Remove what wasn't committed."""
        for folder in self._folders.values():
            folder.remove()
        self._folders.clear()

    def __enter__(self) -> Staging:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.commit()
        finally:
            self.discard()


@contextmanager
def atomic(path: Path | str, existing: Existing = "replace") -> Iterator[Path]:
    """Yield a temporary path; what is written there becomes `path` at the end of the block.

    If the block raises, nothing is left and a file that had the name stays. `HyError` for a disk that is full, and
    for a folder or a name that can't be written; other errors of the block pass.
    """
    with Staging(existing) as staging:
        temporary = staging.file(path)
        with storage_errors(Path(path)):
            yield temporary


def write_bytes(path: Path | str, data: bytes, existing: Existing = "replace") -> None:
    """Write a file of bytes, see `atomic`."""
    with atomic(path, existing) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path | str, text: str, existing: Existing = "replace") -> None:
    """Write a file of UTF-8 text with its line ends as they are, see `atomic`."""
    write_bytes(path, text.encode("utf-8"), existing)


def write_json(path: Path | str, value: Any, indent: int | None = 1) -> None:
    """Write a value as JSON and a line end, see `atomic`."""
    write_text(path, json.dumps(value, indent=indent) + "\n")


def move(source: Path, target: Path, existing: Existing = "replace") -> Path:
    """Move a file within a file system and return its new path; `HyError` for one that exists and is not to."""
    if existing == "replace":
        os.replace(source, target)
        return target
    for name in numbered_names(target) if existing == "number" else (target,):
        try:
            _move_exclusively(source, name)
        except FileExistsError:
            continue
        return name
    raise HyError(f"{target} exists", "remove it, or choose another name")


def numbered_names(path: Path) -> Iterator[Path]:
    """Yield `path`, then the same with -2, -3 and so on before the suffix, cut to what the file system takes."""
    yield path
    for number in itertools.count(2):
        end = f"-{number}{path.suffix}"
        stem = path.stem.encode("utf-8", "surrogateescape")[: _NAME_BYTES - len(os.fsencode(end))]
        yield path.with_name(stem.decode("utf-8", "ignore") + end)


def free_name(path: Path) -> Path:
    """Return the first of `numbered_names` that doesn't exist now; another process may take it before it is used."""
    return next(name for name in numbered_names(path) if not os.path.lexists(name))


def check_writable(path: Path | str) -> None:
    """Raise `UsageError` now if a file could not be written to `path` later; nothing is left behind.

    Its folder may not exist yet.
    """
    path = Path(path)
    try:
        there = path.is_dir()
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        there = False
    except (OSError, ValueError) as problem:
        raise UsageError(
            f"{str(path)[:80]!r} can't be the name of a file: {_reason(problem)}", "choose another with -o"
        ) from None
    if there:
        raise UsageError(f"{path} is a folder", "end the name with / to write into it")
    check_folder(path.parent)
    most = _longest_name(path)
    for part in path.parts:
        if len(os.fsencode(part)) > most:
            raise UsageError(
                f"the name {part[:40]}… has {len(os.fsencode(part))} bytes; at most {most} are possible",
                "choose a shorter one with -o",
            )


def check_folder(folder: Path) -> None:
    """Raise `UsageError` if files can't be created in `folder`, which may not exist yet."""
    existing = _existing(folder)
    if not existing.is_dir():
        raise UsageError(f"{existing} is not a folder", "choose another with -o")
    try:
        HiddenFolder(existing).remove()  # trying is surer than reading permissions
    except OSError as problem:
        raise UsageError(
            f"cannot write to the folder {_shown(existing)}: {_reason(problem)}", "choose another with -o"
        ) from None


def flush(path: Path) -> None:
    """Wait until a file's or a folder's content is on the disk; folders only where the system allows it."""
    if path.is_dir():
        with suppress(OSError):
            _fsync(path, os.O_RDONLY)
    else:
        _fsync(path, os.O_RDWR)


@contextmanager
def open_regular(path: Path | str) -> Iterator[BinaryIO]:
    """Open a regular file for reading; `MissingError` if there is none, `HyError` for a folder, device or pipe."""
    try:
        # A pipe without a writer would block for ever.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except FileNotFoundError as problem:
        raise MissingError(f"no such file: {path}") from problem
    except (OSError, ValueError) as problem:
        raise HyError(f"cannot open {path}: {_reason(problem)}") from problem
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise HyError(f"cannot open {path}: it is not a file")
    with os.fdopen(descriptor, "rb") as file:
        yield file


def read_text(path: Path | str, most: int = 16 << 20) -> str:
    """Read a file of UTF-8 text, with or without a byte order mark, of at most so many bytes.

    `UsageError` if it can't be read; line ends stay as they are.
    """
    try:
        with open_regular(path) as file:
            data = file.read(most + 1)
    except HyError as problem:
        raise UsageError(f"cannot read {path}: {problem.message}", problem.hint) from None
    if len(data) > most:
        raise UsageError(f"cannot read {path}: it has more than {most >> 20} MB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"cannot read {path}: not UTF-8 text") from None


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn every error of the system in the block into a `HyError` that says that `path` can't be written."""
    try:
        yield
    except Exception as problem:  # PyAV's errors have an errno, but not all are OSErrors
        if not isinstance(problem, OSError) and not getattr(problem, "errno", None):
            raise
        raise HyError(f"cannot write {path}: {_reason(problem)}") from problem


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn a full or failing disk in the block into a `HyError` that says that `path` can't be written."""
    try:
        yield
    except Exception as problem:  # PyAV's errors have an errno, but not all are OSErrors
        if getattr(problem, "errno", None) not in _STORAGE_ERRORS:
            raise
        raise HyError(f"cannot write {path}: {_reason(problem)}") from problem


def _move_exclusively(source: Path, target: Path) -> None:
    """Move a file to a name that nothing has; `FileExistsError` otherwise."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        os.replace(source, target)
    else:
        os.unlink(source)


def _fsync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _existing(folder: Path) -> Path:
    """The nearest parent that exists."""
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    return folder


def _longest_name(path: Path) -> int:
    try:
        return os.pathconf(_existing(path.parent), "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):
        return _NAME_BYTES


def _shown(folder: Path) -> Path:
    try:
        return folder.resolve()
    except OSError:  # the current folder was deleted
        return folder


def _reason(problem: Exception) -> str:
    return getattr(problem, "strerror", None) or str(problem) or type(problem).__name__
