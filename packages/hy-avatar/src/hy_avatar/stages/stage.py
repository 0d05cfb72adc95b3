"""What a stage is: from the record of a clip to records, with reasons for what is left out; and the files it keeps."""

from __future__ import annotations

import hashlib
import importlib
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from hy_core import media
from hy_core import options as opts
from hy_core.errors import HyError, MissingError, UsageError

from hy_avatar.footage import Footage

Clip = Mapping[str, Any]
"""A row of a manifest: `path`; `span` in seconds [start, stop] if it is a part of the file; `crop` in pixels
[left, top, right, bottom] if it is a part of the picture; `rejected`, the reason, if it is left out; and what stages
have found."""

_MOST_BYTES = 4 << 30


class Stage:
    """A step of a data pipeline. Fill in `Options`, whose fields are `option()`s, and `found`."""

    name: ClassVar[str]

    @dataclass(frozen=True)
    class Options:
        """A frozen dataclass of `option()` fields."""

    options: Any

    def __init__(self, options: Any = None, /, **values: Any) -> None:
        """Take an `Options` instance, or its fields as keywords; `UsageError` names a wrong one."""
        self.options = opts.parse(self.name, self.Options, values) if options is None else options

    def run(self, clip: Clip) -> Iterable[Clip]:
        """Return the clip with what was found; a clip that can't be used stays, with a `rejected` reason.

        What is rejected already passes as it is. A file that can't be read is rejected for that; what isn't installed
        is a `MissingError`, for it is no fault of the clip's.
        """
        if clip.get("rejected"):
            return [clip]
        try:
            fields, reason = self.found(clip)
        except (UsageError, MissingError) as error:
            if isinstance(error, UsageError) or Footage.of(clip).path.exists():
                raise
            fields, reason = {}, error.message
        except HyError as error:
            fields, reason = {}, error.message
        return [{**clip, **fields, **({"rejected": f"{self.name}: {reason}"} if reason else {})}]

    def found(self, clip: Clip) -> tuple[dict[str, Any], str | None]:
        """Return new fields, and why the clip is to be left out, if it is."""
        raise NotImplementedError

    def kept(self, clip: Clip, field: str, path: Path) -> bool:
        """Whether a record names this file already, and it is there: found in an earlier run with these options."""
        return clip.get(field) == str(path) and path.is_file()

    def place(self, clip: Clip, suffix: str = ".npz") -> Path:
        """The file in the stage's `cache` folder for what it finds out of a clip: another one for other options.

        Its name depends on the file's name, size and time, on span, crop and options.
        """
        footage = Footage.of(clip)
        try:
            about = footage.path.stat()
        except OSError as problem:
            raise HyError(f"cannot open {footage.path}: {problem.strerror}") from problem
        options = {name: str(value) for name, value in asdict(self.options).items() if name != "cache"}
        facts = str(footage.path.resolve()), about.st_size, about.st_mtime_ns, footage.span, footage.crop
        digest = hashlib.sha256(json.dumps([facts, options], sort_keys=True).encode()).hexdigest()[:16]
        folder = Path(self.options.cache).resolve() / self.name
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{footage.path.stem[:60]}-{digest}{suffix}"


def run(stages: Sequence[Stage], clips: Iterable[Clip]) -> Iterator[Clip]:
    """Send every record through all stages, one after the other."""
    for clip in clips:
        rows: list[Clip] = [clip]
        for stage in stages:
            rows = [row for before in rows for row in stage.run(before)]
        yield from rows


def plugged(target: str, known: Mapping[str, str]) -> Any:
    """What a name of `known`, or "module:attribute", stands for, imported; `UsageError` in one line."""
    module, _, attribute = known.get(target, target).partition(":")
    if not attribute:
        raise UsageError(f"{target!r} is not known", f"use {', '.join(known) or 'it'}, or module:attribute")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as problem:
        raise UsageError(f"{target!r} cannot be imported ({problem})") from problem


def write(path: Path, **arrays: Any) -> None:
    """Write arrays as NPZ, whole or not at all."""
    with media.atomic(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


def read(path: Path | str, *names: str) -> dict[str, np.ndarray]:
    """Read what `write` wrote; `HyError` for a file that isn't there, is damaged, or lacks one of the names."""
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as box:
            if sum(part.file_size for part in box.infolist()) > _MOST_BYTES:
                raise HyError(f"{path} is too large to hold")
        with np.load(path, allow_pickle=False) as held:
            return {name: held[name] for name in names}
    except FileNotFoundError as problem:
        raise MissingError(f"no such file: {path}", "run the stage that writes it again") from problem
    except (KeyError, OSError, ValueError, EOFError, zipfile.BadZipFile) as problem:
        raise HyError(
            f"{path} is damaged ({str(problem)[:80]})", "run the stage that writes it again"
        ) from problem
