"""The ledger: what is written comes back, one run at a time, and wrong files are refused."""

from __future__ import annotations

import resource
import sqlite3
import time
from pathlib import Path

import numpy as np
import pytest
from hy_core.errors import UsageError
from hy_data.engine import ledger as module
from hy_data.engine.ledger import Ledger, file_system, is_network
from hy_data.engine.outcome import Outcome


def test_outcomes_come_back_as_they_were(tmp_path: Path) -> None:
    vectors = {"v": np.arange(3, dtype=np.float16), "w": np.eye(2, dtype=np.float32)}
    outcome = Outcome("filtered", {"a": 1.5, "b": [1, None, "\ud800"]}, vectors, "too dark", True, 2, 0.25)
    with Ledger(tmp_path) as ledger:
        ledger.add("c1", "stage", "k1", outcome)
        ledger.add("c1", "other", "k2", Outcome())
    with Ledger(tmp_path, read_only=True) as ledger:
        found = ledger.outcomes("c1")
        assert found["k2"] == Outcome() and not ledger.outcomes("c2")
        same = found["k1"]
        assert (same.status, same.results, same.reason) == ("filtered", outcome.results, "too dark")
        assert (same.is_final, same.tries, same.seconds) == (True, 2, 0.25)
        assert same.vectors["v"].dtype == np.float16 and (same.vectors["w"] == np.eye(2)).all()
        assert ledger.counts() == {"stage": {"filtered": 1}, "other": {"ok": 1}}


def test_rows_are_committed_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_COMMIT_SECONDS", 1e9)
    with Ledger(tmp_path) as ledger, Ledger(tmp_path, read_only=True) as other:
        for number in range(199):
            ledger.add(f"c{number}", "s", "k", Outcome())
            ledger.tick()
        assert not other.counts()
        ledger.add("c", "s", "k", Outcome())
        ledger.tick()
        assert other.counts() == {"s": {"ok": 200}}


def test_a_folder_has_one_run_at_a_time(tmp_path: Path) -> None:
    with Ledger(tmp_path), pytest.raises(UsageError, match="another run writes"):
        Ledger(tmp_path)
    Ledger(tmp_path).close()


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no ledger\.sqlite"):
        Ledger(tmp_path, read_only=True)
    (tmp_path / "ledger.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(UsageError, match="can't be read as a ledger"):
        Ledger(tmp_path)
    (tmp_path / "ledger.sqlite").unlink()
    with sqlite3.connect(tmp_path / "ledger.sqlite") as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(UsageError, match="is of version 99"):
        Ledger(tmp_path)


def test_a_network_file_system_gets_a_journal_that_works_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [is_network(kind) for kind in ("nfs4", "fuse.sshfs", "ext4", "overlay", "tmpfs", "")] == [
        True,
        True,
        False,
        False,
        False,
        False,
    ]
    assert not is_network(file_system(tmp_path))
    monkeypatch.setattr(module, "file_system", lambda path: "nfs4")
    with Ledger(tmp_path) as ledger:
        assert ledger.note is not None and "nfs4" in ledger.note
        ledger.add("c", "s", "k", Outcome())
        ledger.commit()
        assert not list(tmp_path.glob("*-wal")) and ledger.outcomes("c")


def test_a_file_is_hashed_again_only_when_it_changed(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.set_content("a", 3, 5, "sha")
        assert ledger.content("a", 3, 5) == "sha"
        assert ledger.content("a", 3, 6) is None and ledger.content("b", 3, 5) is None


@pytest.mark.slow
def test_a_million_rows_are_written_and_read(tmp_path: Path) -> None:
    results = {"brightness": 101.25, "frames": 121, "text_area": 0.0125}
    start = time.process_time()
    with Ledger(tmp_path) as ledger:
        for clip in range(100_000):
            for stage in range(10):
                ledger.add(
                    f"{clip * 2654435761 % 2**64:016x}",
                    f"stage-{stage}",
                    f"{stage:016x}",
                    Outcome(results=results),
                )
                ledger.tick()
        written = time.process_time() - start
        start = time.process_time()
        for clip in range(0, 100_000, 10):
            assert len(ledger.outcomes(f"{clip * 2654435761 % 2**64:016x}")) == 10
        read = time.process_time() - start
    size = (tmp_path / "ledger.sqlite").stat().st_size
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"written {written:.1f} s, 100,000 of a million read {read:.1f} s, {size / 1e6:.0f} MB, {peak >> 10} MB memory"
    )
    assert written < 90 and read < 15 and size < 400e6
