"""The record of a clip: a file, the part of it that is meant, its captions, and the results of stages."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from hy_core.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

JSON: TypeAlias = "str | int | float | bool | list[JSON] | dict[str, JSON] | None"

_OWN = ("path", "span", "crop", "rejected", "caption", "captions")


@dataclass(frozen=True)
class ClipRecord:
    """One clip of a file; a line of a manifest.

    `path` is as the manifest writes it; `file` is where it lies: beside the manifest (in `home`), else relative to
    the current folder. `span` is (start, stop) in seconds from the first frame, None for the whole file; `crop` is
    (left, top, right, bottom) in pixels of the upright picture, None for all of it. `rejected` is the reason why the
    clip must not be used, None if it may be. `captions` are alternatives. `results` are what stages found, by the name
    of the field; a result that is a path names a file with arrays. `vectors` are results that are arrays: they aren't
    part of the JSON, a pipeline stores them beside it.
    """

    path: Path
    span: tuple[float, float] | None = None
    crop: tuple[int, int, int, int] | None = None
    rejected: str | None = None
    captions: tuple[str, ...] = ()
    results: Mapping[str, JSON] = field(default_factory=dict)
    vectors: Mapping[str, np.ndarray] = field(default_factory=dict, compare=False)
    home: Path = field(default=Path(), compare=False)

    @classmethod
    def from_json(cls, value: Any, home: Path = Path()) -> ClipRecord:
        """Make a record of a JSON object; `UsageError` says which key is wrong and what would be right.

        `caption` (one string) and `captions` (a list of strings) are accepted; unknown keys are results of stages.
        """
        if not isinstance(value, Mapping):
            raise UsageError(
                f"{_short(value)} is not a record", 'such as {"path": "a.mp4", "caption": "rain"}'
            )
        path = _path(value.get("path"), value)
        return cls(
            path,
            _span(value.get("span"), path),
            _crop(value.get("crop"), path),
            _rejected(value.get("rejected"), path),
            _captions(value, path),
            {str(key): one for key, one in value.items() if key not in _OWN},
            home=home,
        )

    def to_json(self) -> dict[str, JSON]:
        """Return the JSON object that `from_json` reads: keys of None and empty captions are left out."""
        row: dict[str, JSON] = {"path": str(self.path)}
        if self.span is not None:
            row["span"] = list(self.span)
        if self.crop is not None:
            row["crop"] = list(self.crop)
        if self.rejected is not None:
            row["rejected"] = self.rejected
        if self.captions:
            row["captions"] = list(self.captions)
        return row | dict(self.results)

    @property
    def file(self) -> Path:
        """Where the clip's file lies: beside the manifest if it is there, else the path as it is."""
        return self._located(self.path)

    def result_file(self, name: str) -> Path:
        """Return the file that the result `name` names, located as `file` is; `UsageError` if it isn't a path."""
        value = self.results.get(name)
        if not isinstance(value, str) or not _is_path(value):
            raise UsageError(f"{self.path}: {name} = {_short(value)} is not the name of a file")
        return self._located(Path(value))

    def with_results(
        self, results: Mapping[str, JSON | np.ndarray], rejected: str | None = None
    ) -> ClipRecord:
        """Return a copy with more results, and rejected if a reason is given.

        `span`, `crop` and `captions` among the results replace the record's own (`UsageError` if they are malformed);
        arrays, of any shape, become `vectors`.
        """
        vectors: dict[str, Any] = {name: one for name, one in results.items() if hasattr(one, "__array__")}
        plain: dict[str, Any] = {name: one for name, one in results.items() if name not in vectors}
        changed = self
        if not plain.keys().isdisjoint(_OWN):
            changed = ClipRecord.from_json({**self.to_json(), **plain}, self.home)
            plain = {}
        return replace(
            changed,
            results={**changed.results, **plain},
            vectors={**self.vectors, **vectors},
            rejected=rejected or self.rejected,
        )

    def _located(self, path: Path) -> Path:
        beside = self.home / path
        return beside if beside.exists() else path


def _path(value: Any, row: Mapping[Any, Any]) -> Path:
    if isinstance(value, Path) and str(value) != ".":
        return value
    if not isinstance(value, str) or not value:
        raise UsageError(f"a record without a path: {_short(row)}")
    if not _is_path(value):
        raise UsageError(f"path = {_short(value)} is not a file name")
    return Path(value)


def _is_path(text: str) -> bool:
    try:
        return bool(text) and b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def _span(value: Any, path: Path) -> tuple[float, float] | None:
    if value is None:
        return None
    try:
        start, stop = (float(one) for one in value)
    except (TypeError, ValueError, OverflowError):
        raise UsageError(f"{path}: the span {_short(value)} is not [start, stop] in seconds") from None
    if not 0 <= start < stop < math.inf:
        raise UsageError(f"{path}: the span {start:g} to {stop:g} is empty or endless")
    return start, stop


def _crop(value: Any, path: Path) -> tuple[int, int, int, int] | None:
    if value is None:
        return None
    try:
        left, top, right, bottom = (int(one) for one in value)
    except (TypeError, ValueError, OverflowError):
        left = top = right = bottom = -1
    if not (0 <= left < right and 0 <= top < bottom):
        raise UsageError(f"{path}: the crop {_short(value)} is not [left, top, right, bottom] in pixels")
    return left, top, right, bottom


def _rejected(value: Any, path: Path) -> str | None:
    if not value:
        return None
    if not isinstance(value, str):
        raise UsageError(f"{path}: rejected = {_short(value)} is not a reason (a text)")
    return value


def _captions(row: Mapping[Any, Any], path: Path) -> tuple[str, ...]:
    value = row.get("captions") or row.get("caption") or ()
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise UsageError(f"{path}: captions = {_short(value)} is not a list of texts")
    return tuple(texts)


def _short(value: Any) -> str:
    """A value for an error text, in at most 80 characters."""
    try:
        text = json.dumps(value, ensure_ascii=True, default=str)
    except (ValueError, RecursionError):
        text = repr(type(value).__name__)
    return text if len(text) <= 80 else text[:77] + "..."
