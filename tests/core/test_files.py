"""Files appear complete or not at all; names are claimed by one process; what killed processes left is removed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hy_core import files
from hy_core.errors import HyError, UsageError
from hy_core.hidden_folder import sweep


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def python(code: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code], cwd=folder, stdout=subprocess.PIPE, text=True)


def test_a_file_appears_at_the_end_of_the_block(tmp_path: Path) -> None:
    with files.atomic(tmp_path / "new" / "a.txt") as temporary:
        temporary.write_text("1")
        assert not (tmp_path / "new" / "a.txt").exists()
    assert (tmp_path / "new" / "a.txt").read_text() == "1" and names(tmp_path / "new") == ["a.txt"]


def test_an_error_in_the_block_keeps_the_old_file(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a", "old")
    with pytest.raises(ZeroDivisionError), files.atomic(tmp_path / "a") as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert (tmp_path / "a").read_text() == "old" and names(tmp_path) == ["a"]


def test_a_full_disk_is_one_line_and_keeps_the_old_file(tmp_path: Path) -> None:
    code = """
import resource, signal
from hy_core import files
from hy_core.errors import HyError
files.write_bytes("a", b"old")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    files.write_bytes("a", bytes(100000))
except HyError as error:
    print(error.message)
"""
    said = python(code, tmp_path).communicate()[0]
    assert said == "cannot write a: File too large\n"
    assert (tmp_path / "a").read_bytes() == b"old" and names(tmp_path) == ["a"]


def test_the_first_file_of_several_appears_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "1").write_text("old")
    move, moved = files.move, []

    def killed(source: Path, target: Path, existing: files.Existing) -> Path:
        if len(moved) == 2:
            raise KeyboardInterrupt
        moved.append(target.name)
        return move(source, target, existing)

    monkeypatch.setattr(files, "move", killed)
    with pytest.raises(KeyboardInterrupt), files.Staging() as staging:
        for name in "1234":
            staging.file(tmp_path / name).write_text(name)
    assert moved == ["2", "3"] and names(tmp_path) == ["2", "3"]


def test_a_default_name_is_claimed_by_one_process(tmp_path: Path) -> None:
    code = "from hy_core import files\nfor i in range(50): files.write_text('a.txt', str(i), 'number')"
    for child in [python(code, tmp_path) for _ in range(3)]:
        assert child.wait() == 0
    assert len(names(tmp_path)) == 150 and {"a.txt", "a-2.txt", "a-150.txt"} <= set(names(tmp_path))


def test_a_name_that_must_be_new_is_refused_when_it_exists(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a", "1", "refuse")
    with pytest.raises(HyError, match="exists"):
        files.write_text(tmp_path / "a", "2", "refuse")
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(HyError, match="exists"):
        files.write_text(tmp_path / "link", "2", "refuse")
    assert (tmp_path / "a").read_text() == "1" and names(tmp_path) == ["a", "link"]


def test_names_are_claimed_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*arguments: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", unsupported)
    for text in "123":
        files.write_text(tmp_path / "a.b", text, "number")
    assert [(tmp_path / name).read_text() for name in ("a.b", "a-2.b", "a-3.b")] == ["1", "2", "3"]


def test_what_a_killed_process_left_is_removed_but_not_what_is_in_use(tmp_path: Path) -> None:
    code = """
from hy_core import files
with files.atomic("a") as temporary:
    temporary.write_text("half")
    print("ready", flush=True)
    input()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == b"ready\n"
        sweep(tmp_path)
        assert len(names(tmp_path)) == 1
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert len(names(tmp_path)) == 1
    python("from hy_core import files; files.write_text('b', '')", tmp_path).wait()
    assert names(tmp_path) == ["b"]


def test_sweeping_follows_no_links(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / ".hy-0123456789abcdef.part").symlink_to("precious")
    (tmp_path / ".hy-mine.part").mkdir()
    sweep(tmp_path)
    assert len(names(tmp_path)) == 3


@pytest.mark.parametrize("name", ["x" * 255, "視" * 85, "a:b.txt", "C:\\a", "-a", "a\nb", "\udcff"])
def test_every_name_that_the_file_system_takes_can_be_written(tmp_path: Path, name: str) -> None:
    files.check_writable(tmp_path / name)
    files.write_text(tmp_path / name, "1")
    assert names(tmp_path) == [name]
    files.write_text(tmp_path / name, "2", "number")
    assert len(names(tmp_path)) == 2


@pytest.mark.parametrize("name", ["x" * 256, "new/" + "x" * 256, "視" * 86, "a\0b", "folder", "file/a"])
def test_a_name_that_cannot_be_written_is_refused_at_once(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError) as caught:
        files.check_writable(tmp_path / name)
    assert "\n" not in caught.value.message and names(tmp_path) == ["file", "folder"]


def test_a_deleted_current_folder_is_an_error_of_one_line(tmp_path: Path) -> None:
    code = """
import os
from hy_core import files
from hy_core.errors import HyError
os.mkdir("gone"); os.chdir("gone"); os.rmdir("../gone")
for call in (files.check_writable, lambda name: files.write_text(name, "")):
    try:
        call("a")
    except HyError as error:
        print(error.message)
"""
    child = python(code, tmp_path)
    assert len(child.communicate()[0].splitlines()) == 2 and child.returncode == 0


def test_many_files_do_not_need_many_descriptors(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    with files.Staging() as staging:
        for number in range(100):
            staging.file(tmp_path / str(number)).write_text("")
        if before:
            assert len(os.listdir("/proc/self/fd")) <= before + 2
    started = time.monotonic()
    assert len(names(tmp_path)) == 100 and time.monotonic() - started < 5
