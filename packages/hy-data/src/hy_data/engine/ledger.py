"""The account of a run: what every stage found out about every clip, in an SQLite file that survives any kill.

A row is written once for each clip and key (see `PlannedStage.key`) and never changed; writes are committed together
every 0.2 s or 200 rows, so a killed run loses at most those, and does them again.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import safetensors.numpy
from hy_core.errors import HyError, UsageError
from hy_core.files import check_folder

from hy_data.engine.outcome import Outcome

NAME = "ledger.sqlite"
SCHEMA = 1
_COMMIT_ROWS, _COMMIT_SECONDS = 200, 0.2
_NETWORK = (
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "afs",
    "ceph",
    "glusterfs",
    "lustre",
    "gpfs",
    "beegfs",
)
_TABLES = """
CREATE TABLE IF NOT EXISTS results (
    clip TEXT NOT NULL, key TEXT NOT NULL, stage TEXT NOT NULL, status TEXT NOT NULL, reason TEXT,
    final INTEGER NOT NULL, tries INTEGER NOT NULL, seconds REAL NOT NULL, results TEXT NOT NULL, vectors BLOB,
    PRIMARY KEY (clip, key));
CREATE TABLE IF NOT EXISTS files (
    path TEXT PRIMARY KEY, size INTEGER NOT NULL, changed INTEGER NOT NULL, content TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS inputs (
    position INTEGER PRIMARY KEY, entry TEXT NOT NULL, content TEXT, problem TEXT, size INTEGER);
CREATE TABLE IF NOT EXISTS totals (stage TEXT PRIMARY KEY, clips INTEGER, seconds REAL, media REAL);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT);
"""


class Ledger:
    """The ledger of an output folder. To write, it is locked: a second run on the folder is refused.

    `UsageError` for a file of another version, for one that is no ledger, and for a folder in use.
    """

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        self.path = folder / NAME
        self.note: str | None = None
        self._lock: int | None = None
        self._waiting, self._since = 0, 0.0
        if read_only:
            if not self.path.is_file():
                raise UsageError(
                    f"{folder} has no {NAME}", "give the folder of a run: hy data run INPUT -o OUT"
                )
        else:
            check_folder(folder)
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(folder)
        try:
            self._open(read_only)
        except UsageError:
            self._unlock()
            raise
        except sqlite3.DatabaseError as error:
            self._unlock()
            raise UsageError(f"{self.path} can't be read as a ledger ({error})", "use another -o") from None

    def _open(self, read_only: bool) -> None:
        self._database = sqlite3.connect(self.path, isolation_level=None, timeout=30)
        version = self._database.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, SCHEMA):
            raise UsageError(
                f"{self.path} is of version {version}, this is version {SCHEMA}", "use another -o"
            )
        if read_only:
            self._database.execute("PRAGMA query_only = 1")
            return
        kind = file_system(self.path)
        wal = "memory"
        if not is_network(kind):
            wal = self._database.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if wal != "wal":  # the shared memory of WAL does not work across machines
            self._database.execute("PRAGMA journal_mode = DELETE")
            self.note = f"{self.path} is on a network file system ({kind}): the ledger is written more slowly"
        self._database.execute(f"PRAGMA synchronous = {'NORMAL' if wal == 'wal' else 'FULL'}")
        self._database.executescript(_TABLES)
        self._database.execute(f"PRAGMA user_version = {SCHEMA}")

    # results

    def add(self, clip: str, stage: str, key: str, outcome: Outcome) -> None:
        """Store an outcome; it is on the disk after `commit`."""
        self._write(
            "INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                clip,
                key,
                stage,
                outcome.status,
                outcome.reason,
                outcome.is_final,
                outcome.tries,
                outcome.seconds,
                outcome.results_text(),
                outcome.vectors_bytes(),
            ),
        )

    def outcomes(self, clip: str) -> dict[str, Outcome]:
        """Return all outcomes of a clip, of this and of other recipes, by key."""
        rows = self._database.execute(
            "SELECT key, status, reason, final, tries, seconds, results, vectors FROM results WHERE clip = ?",
            (clip,),
        )
        return {
            key: Outcome(
                status,
                json.loads(results) if results else {},
                safetensors.numpy.load(vectors) if vectors else {},
                reason,
                bool(final),
                tries,
                seconds,
            )
            for key, status, reason, final, tries, seconds, results, vectors in rows
        }

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Yield (clip, stage, key, status, reason, tries, results) of all outcomes, sorted, for comparisons."""
        yield from self._database.execute(
            "SELECT clip, stage, key, status, reason, tries, results FROM results ORDER BY clip, stage, key"
        )

    def forget_failed(self) -> int:
        """Remove the rows of failed stages so that they run again; return their number."""
        count = self._database.execute("DELETE FROM results WHERE status = 'failed'").rowcount
        return int(count)

    # inputs

    def set_inputs(self, entries: Iterable[dict[str, Any]]) -> int:
        """Replace the list of inputs; return their number."""
        self._begin()
        self._database.execute("DELETE FROM inputs")
        self._database.executemany(
            "INSERT INTO inputs (position, entry, size) VALUES (?, ?, ?)",
            ((at, json.dumps(one), one.get("size", 0)) for at, one in enumerate(entries)),
        )
        self.commit()
        return int(self._database.execute("SELECT COUNT(*) FROM inputs").fetchone()[0])

    def inputs(self) -> Iterator[tuple[int, dict[str, Any], str | None, str | None]]:
        """Yield (position, entry, content, problem) of the inputs in order; many may be read at once."""
        last = -1
        while rows := self._database.execute(
            "SELECT position, entry, content, problem FROM inputs WHERE position > ? ORDER BY position LIMIT 1000",
            (last,),
        ).fetchall():
            for position, entry, content, problem in rows:
                yield position, json.loads(entry), content, problem
            last = rows[-1][0]

    def input_sizes(self) -> tuple[int, int]:
        """Return the number of inputs and their bytes."""
        count, size = self._database.execute("SELECT COUNT(*), TOTAL(size) FROM inputs").fetchone()
        return int(count), int(size)

    def set_input(self, position: int, content: str | None, problem: str | None) -> None:
        """Store an input's content hash, or why it can't be used."""
        self._write(
            "UPDATE inputs SET content = ?, problem = ? WHERE position = ?", (content, problem, position)
        )

    def content(self, path: str, size: int, changed: int) -> str | None:
        """Return the stored hash of a file that hasn't changed, None if there is none."""
        row = self._database.execute(
            "SELECT size, changed, content FROM files WHERE path = ?", (path,)
        ).fetchone()
        return row[2] if row and row[:2] == (size, changed) else None

    def set_content(self, path: str, size: int, changed: int, content: str) -> None:
        """Store the hash of a file."""
        self._write("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", (path, size, changed, content))

    # figures

    def add_total(self, stage: str, clips: int, seconds: float, media: float) -> None:
        """Add to a stage's totals: clips, seconds of work, seconds of video."""
        self._write(
            "INSERT INTO totals VALUES (?, ?, ?, ?) ON CONFLICT (stage) DO UPDATE SET clips = clips + excluded.clips,"
            " seconds = seconds + excluded.seconds, media = media + excluded.media",
            (stage, clips, seconds, media),
        )

    def totals(self) -> dict[str, tuple[int, float, float]]:
        """Return clips, seconds of work and seconds of video by stage."""
        return {row[0]: (row[1], row[2], row[3]) for row in self._database.execute("SELECT * FROM totals")}

    def counts(self) -> dict[str, dict[str, int]]:
        """Return numbers of outcomes by stage and status."""
        found: dict[str, dict[str, int]] = {}
        for stage, status, count in self._database.execute(
            "SELECT stage, status, COUNT(*) FROM results GROUP BY stage, status"
        ):
            found.setdefault(stage, {})[status] = count
        return found

    def set_fact(self, name: str, value: Any) -> None:
        """Store a JSON value of the run."""
        self._write("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, json.dumps(value)))

    def fact(self, name: str, default: Any = None) -> Any:
        """Return a value of `set_fact`."""
        row = self._database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return json.loads(row[0]) if row else default

    # transactions

    def tick(self) -> None:
        """Commit if enough rows wait, or the first has waited long enough."""
        if self._waiting >= _COMMIT_ROWS or (
            self._waiting and time.monotonic() - self._since > _COMMIT_SECONDS
        ):
            self.commit()

    def commit(self) -> None:
        """Commit what was written."""
        if self._database.in_transaction:
            self._guarded("COMMIT")
        self._waiting = 0

    def close(self) -> None:
        """Commit and close."""
        try:
            if self._lock is not None:
                self.commit()
        finally:
            self._database.close()
            self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self) -> None:
        if not self._database.in_transaction:
            self._database.execute("BEGIN")
            self._since = time.monotonic()

    def _write(self, statement: str, values: tuple[Any, ...]) -> None:
        self._begin()
        self._guarded(statement, values)
        self._waiting += 1

    def _guarded(self, statement: str, values: tuple[Any, ...] = ()) -> None:
        try:
            self._database.execute(statement, values)
        except sqlite3.OperationalError as error:  # the disk is full, or failing
            raise HyError(
                f"cannot write {self.path}: {error}", "make space; the same command resumes"
            ) from error


def file_system(path: Path) -> str:
    """Return the type of the file system of a path as Linux names it, "" if it isn't known."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    real, best, kind = os.path.realpath(path), "", ""
    for line in lines:
        left, _, right = line.partition(" - ")
        where = left.split(" ")[4].replace("\\040", " ")
        inside = real == where or real.startswith(where.rstrip("/") + "/")
        if inside and len(where) >= len(best):
            best, kind = where, right.split(" ")[0]
    return kind


def is_network(kind: str) -> bool:
    """Whether a type of file system is shared by several machines."""
    return kind in _NETWORK or (kind.startswith("fuse.") and kind not in ("fuse.fuseblk", "fuse.overlayfs"))


def _locked(folder: Path) -> int | None:
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    descriptor = os.open(folder / f"{NAME}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UsageError(f"another run writes to {folder}", "wait for it, or use another -o") from None
    except OSError:  # a file system without locks
        os.close(descriptor)
        return None
    return descriptor
