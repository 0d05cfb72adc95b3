"""Inputs: folders, files and lists become entries; downloads are bounded, resumed and never private."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from data.engine_runs import good_clip, recipe_of, score, table
from hy_core.errors import HyError, MissingError, UsageError
from hy_data.recipe import SourceOptions
from hy_data.sources.download import download
from hy_data.sources.files import content_hash, list_inputs

ALLOWED = SourceOptions(allow_private_addresses=True)
DATA = bytes(range(256)) * 40


def names(listing: Any) -> list[str]:
    return [Path(entry["path"]).name for entry in listing.entries]


def test_a_folder_is_listed_without_what_is_no_video(tmp_path: Path) -> None:
    root, away = tmp_path / "in", tmp_path / "away"
    for folder in (root / "b", root / ".hidden", root / "out", away):
        folder.mkdir(parents=True)
    for path in ("b/2.MP4", "1.mkv", "3.txt", ".4.mp4", ".hidden/5.mp4", "out/6.mp4", "na\nme.mp4"):
        (root / path).write_bytes(b"x")
    (away / "7.mp4").write_bytes(b"x")
    (root / "link.mp4").symlink_to(away / "7.mp4")
    (root / "inner.mp4").symlink_to(root / "1.mkv")
    (root / "folder").symlink_to(away)
    os.mkfifo(root / "pipe.mp4")
    listing = list_inputs(root, root / "out")
    assert names(listing) == ["1.mkv", "2.MP4", "inner.mp4", "na\nme.mp4"]
    assert listing.ignored == {".txt": 1, "hidden": 1, "link out of the folder": 1, "not a file": 1}


def test_lists_name_files_and_addresses(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("# ours\na.mp4\n\nsub/b.mp4\nhttps://example.org/c.mp4\n")
    entries = list_inputs(tmp_path / "list.txt").entries
    assert [entry.get("url") or entry["path"] for entry in entries] == [
        str(tmp_path / "a.mp4"),
        str(tmp_path / "sub/b.mp4"),
        "https://example.org/c.mp4",
    ]
    (tmp_path / "list.jsonl").write_text(
        '{"path": "a.mp4", "span": [1, 2], "caption": "rain"}\n{"url": "http://x/b.mp4", "sha256": "%s"}\n'
        % ("A" * 64)
    )
    one, two = list_inputs(tmp_path / "list.jsonl").entries
    assert one["record"] == {"span": [1.0, 2.0], "captions": ["rain"]}
    assert two["url"] == "http://x/b.mp4" and two["sha256"] == "a" * 64


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "line 1 is not JSON"),
        ("[1]", "line 1 is not a JSON object"),
        ('{"path": "a", "span": [2, 1]}', "line 1: a: the span"),
        ('{"caption": "x"}', "line 1: a record without a path"),
        ('{"path": "a", "sha256": "12"}', "sha256 is not 64 hex digits"),
        ("", "has no videos"),
    ],
)
def test_wrong_lists_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "list.jsonl").write_text(text)
    with pytest.raises(UsageError) as caught:
        list_inputs(tmp_path / "list.jsonl")
    assert message in str(caught.value)


def test_nothing_to_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(MissingError):
        list_inputs(tmp_path / "none")
    (tmp_path / "a.doc").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"1 \.doc"):
        list_inputs(tmp_path)
    with pytest.raises(HyError, match="is empty"):
        (tmp_path / "a.mp4").write_bytes(b"")
        content_hash(tmp_path / "a.mp4")


def test_clips_of_a_list_keep_spans_and_captions(tmp_path: Path) -> None:
    good_clip(tmp_path / "a.mp4", 3, 24)
    (tmp_path / "list.jsonl").write_text(
        '{"path": "a.mp4", "span": [0, 0.5], "caption": "rain"}\n{"path": "a.mp4", "span": [0.5, 1]}\n'
        '{"path": "gone.mp4"}\n'
    )
    score(tmp_path / "list.jsonl", tmp_path / "out", recipe_of(["bright"]))
    from hy_data.table import read_scores

    rows = read_scores(tmp_path / "out" / "scores.parquet").to_pylist()
    spans = sorted((row["start"], row["stop"], row["captions"]) for row in rows if row["status"] == "ok")
    assert spans == [(0.0, 0.5, ["rain"]), (0.5, 1.0, [])]
    assert "no such file" in table(tmp_path / "out")["gone.mp4"]["reason"]


class Handler(BaseHTTPRequestHandler):
    breaks = 0
    seen: list[str | None] = []

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        Handler.seen.append(wanted)
        if self.path == "/moved.mp4":
            self.send_response(302)
            self.send_header("Location", "/a.mp4")
            self.end_headers()
            return
        if self.path == "/gone.mp4":
            self.send_error(404)
            return
        start = int(wanted[6:-1]) if wanted else 0
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(DATA) - 1}/{len(DATA)}")
        if self.path != "/endless.mp4":
            self.send_header("Content-Length", str(len(DATA) - start))
        self.end_headers()
        body = DATA[start:]
        if Handler.breaks:
            Handler.breaks -= 1
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    served = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Handler.breaks, Handler.seen = 0, []
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()
    served.server_close()


def test_a_broken_download_resumes(server: str, tmp_path: Path) -> None:
    Handler.breaks = 1
    path = download(f"{server}/a.mp4", tmp_path, ALLOWED, hashlib.sha256(DATA).hexdigest())
    assert path.read_bytes() == DATA and path.suffix == ".mp4"
    assert Handler.seen == [None, f"bytes={len(DATA) // 2}-"]
    download(f"{server}/a.mp4", tmp_path, ALLOWED)
    assert len(Handler.seen) == 2, "it is there already"
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    assert download(f"{server}/moved.mp4", tmp_path, ALLOWED).read_bytes() == DATA


def test_downloads_are_refused_for_a_reason(server: str, tmp_path: Path) -> None:
    small = SourceOptions(allow_private_addresses=True, max_download_gb=1e-6)
    for url, options, sha256, message in (
        (f"{server}/a.mp4", SourceOptions(), None, "127.0.0.1 is a private address"),
        ("http://localhost/a.mp4", SourceOptions(), None, "is a private address"),
        (f"{server}/a.mp4", small, None, "is over"),
        (f"{server}/endless.mp4", small, None, "is over"),
        (f"{server}/gone.mp4", ALLOWED, None, "the server says 404"),
        (f"{server}/b.mp4", ALLOWED, "0" * 64, "its SHA-256 is"),
        ("http://[bad/a.mp4", SourceOptions(), None, "is not an address"),
    ):
        with pytest.raises(HyError, match=message):
            download(url, tmp_path, options, sha256)
    assert not list(tmp_path.glob("*.mp4"))
