"""From the inputs of a run to clips: downloads and hashes files some steps ahead, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from hy_core.data import ClipRecord
from hy_core.errors import HyError

from hy_data.engine.clip import Clip, clip_id
from hy_data.engine.ledger import Ledger
from hy_data.engine.pace import Pace
from hy_data.recipe import SourceOptions
from hy_data.sources.download import download, downloaded
from hy_data.sources.files import content_hash

SOURCE = "source"
"""The name of the stage at which inputs that can't be read, or are there twice, are dropped."""
_AHEAD = 8
_BYTES_A_SECOND = 125_000  # of video, to guess the length of a file that nothing has examined


class Intake:
    """Yields the clip of each input whose file can be read, and notes in the ledger why others can't."""

    def __init__(self, ledger: Ledger, options: SourceOptions, folder: Path, pace: Pace) -> None:
        self.ledger, self.options, self.folder, self.pace = ledger, options, folder, pace
        self._seen: dict[str, str] = {}

    def clips(self) -> Generator[Clip | None, None, None]:
        """Yield clips in the order of the inputs, None while the next one's file isn't there or hashed yet."""
        waiting: deque[tuple[int, dict[str, Any], Future[str]]] = deque()
        inputs = self.ledger.inputs()
        pool = ThreadPoolExecutor(2, thread_name_prefix="hy-data-intake")
        is_exhausted = False
        try:
            while True:
                while not is_exhausted and len(waiting) < _AHEAD:
                    try:
                        position, entry, _, _ = next(inputs)
                    except StopIteration:
                        is_exhausted = True
                        break
                    waiting.append((position, entry, self._begin(entry, pool)))
                if not waiting:
                    return
                if not waiting[0][2].done():
                    yield None
                    continue
                position, entry, future = waiting.popleft()
                clip = self._clip(position, entry, future)
                if clip is not None:
                    yield clip
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _begin(self, entry: dict[str, Any], pool: ThreadPoolExecutor) -> Future[str]:
        if "url" in entry:
            return pool.submit(self._download, dict(entry))
        with suppress(OSError, ValueError):
            about = Path(entry["path"]).stat()
            known = self.ledger.content(entry["path"], about.st_size, about.st_mtime_ns)
            if known is not None:
                done: Future[str] = Future()
                done.set_result(known)
                return done
        return pool.submit(content_hash, Path(entry["path"]))

    def _download(self, entry: dict[str, Any]) -> str:
        return content_hash(download(entry["url"], self.folder, self.options, entry.get("sha256")))

    def _clip(self, position: int, entry: dict[str, Any], future: Future[str]) -> Clip | None:
        self.pace.files += 1
        self.pace.bytes += entry["size"]
        try:
            content = future.result()
            self._check(entry, content)
        except HyError as error:
            self._refuse(position, None, error.message)
            return None
        clip = make_clip(entry, content, self.folder)
        where = entry.get("url") or entry["path"]
        if clip.id in self._seen:
            self._refuse(position, content, f"the same content as {self._seen[clip.id]}")
            return None
        self._seen[clip.id] = where
        self.ledger.set_input(position, content, None)
        return clip

    def _check(self, entry: dict[str, Any], content: str) -> None:
        if "url" in entry:
            return
        if entry.get("sha256") not in (None, content):
            raise HyError(f"{entry['path']}: its SHA-256 is {content[:16]}..., not {entry['sha256'][:16]}...")
        with suppress(OSError):
            about = Path(entry["path"]).stat()
            self.ledger.set_content(entry["path"], about.st_size, about.st_mtime_ns, content)

    def _refuse(self, position: int, content: str | None, reason: str) -> None:
        self.ledger.set_input(position, content, reason)
        self.pace.clips["filtered" if content else "failed"] += 1
        if content is None:
            self.pace.last_failed = ("", SOURCE, reason)


def make_clip(entry: dict[str, Any], content: str, folder: Path) -> Clip:
    """Return the clip of an input; `folder` has the downloads."""
    if "url" in entry:
        path, more = downloaded(entry["url"], folder), {"url": entry["url"]}
    else:
        path, more = Path(entry["path"]), {}
    record = ClipRecord.from_json({**entry.get("record", {}), **more, "path": str(path)})
    seconds = entry["size"] / _BYTES_A_SECOND
    if record.span is not None:
        seconds = record.span[1] - record.span[0]
    crop = str(record.crop) if record.crop else ""
    return Clip(clip_id(content, record.span, crop), content, record, seconds)
