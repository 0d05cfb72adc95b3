"""A step of a data pipeline: from the record of a clip to records, with reasons for what is left out.

A stage is usable alone, and a plugin offers its own by `register_stages`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from hy_core import options as opts
from hy_core.errors import HyError, MissingError, UsageError

Clip = Mapping[str, Any]
"""A row of a manifest: `path`; `span` in seconds [start, stop] if it is a part of the file; `crop` in pixels
[left, top, right, bottom] if it is a part of the picture; `rejected`, the reason, if it is left out; and what stages
have found."""


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
        except UsageError:
            raise
        except HyError as error:
            if isinstance(error, MissingError) and place(clip)[0].exists():
                raise
            fields, reason = {}, error.message
        return [{**clip, **fields, **({"rejected": f"{self.name}: {reason}"} if reason else {})}]

    def found(self, clip: Clip) -> tuple[dict[str, Any], str | None]:
        """Return new fields, and why the clip is to be left out, if it is."""
        raise NotImplementedError


def run(stages: Sequence[Stage], clips: Iterable[Clip]) -> Iterator[Clip]:
    """Send every record through all stages, one after the other."""
    for clip in clips:
        rows: list[Clip] = [clip]
        for stage in stages:
            rows = [row for before in rows for row in stage.run(before)]
        yield from rows


def place(clip: Clip) -> tuple[Path, tuple[float, float] | None]:
    """The file and the span of a record; `UsageError` for what is no record."""
    path, span = clip.get("path"), clip.get("span")
    if not isinstance(path, (str, Path)) or not str(path):
        raise UsageError(f"a record without a path: {str(clip)[:80]}")
    if span is None:
        return Path(path), None
    try:
        start, stop = (float(value) for value in span)
    except (TypeError, ValueError):
        raise UsageError(f"{path}: the span {str(span)[:40]!r} is not [start, stop]") from None
    if not 0 <= start < stop < float("inf"):
        raise UsageError(f"{path}: the span {start:g} to {stop:g} is empty or endless")
    return Path(path), (start, stop)
