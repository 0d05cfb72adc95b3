"""A set as a source of training clips: each clip in the shape of its bucket, decoded when it is asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from hy_core.data import Clip, ClipRecord, ClipShape
from hy_core.errors import HyError, MissingError, UsageError
from hy_core.media import read_picture
from hy_core.media.names import PICTURES
from hy_core.media.timeline import frames_at, sound, sound_format
from hy_core.request import Sound

from hy_data.buckets import ASPECTS, Assignment, assign, make_buckets
from hy_data.captions.render import RenderOptions, render
from hy_data.captions.schema import StructuredCaption
from hy_data.table import open_scores, read_path

_COLUMNS = (
    "id",
    "path",
    "start",
    "stop",
    "crop",
    "width",
    "height",
    "fps",
    "frames",
    "captions",
    "caption_fields",
    "time",
    "concept",
)


@dataclass(frozen=True)
class SetClip(Clip):
    """A clip of a set in the shape of its bucket.

    `span` is (start, stop) in seconds, `crop` (left, top, right, bottom) in pixels of the file, `time` the moment of a
    picture taken from a video. `rate`: frames a second.
    """

    id: str
    file: Path
    shape: ClipShape
    rate: float
    span: tuple[float, float] | None = None
    crop: tuple[int, int, int, int] | None = None
    time: float | None = None
    texts: tuple[str, ...] = ()
    fields: StructuredCaption | None = None
    options: RenderOptions = field(default_factory=RenderOptions)

    @property
    def fps(self) -> float:
        """Frames a second."""
        return self.rate

    def video(self) -> np.ndarray:
        """Return the frames, uint8 [T, H, W, 3]: scaled until the shape is covered, the rest cropped at the centre.

        `HyError` for a file that can't be read and for one that has fewer frames.
        """
        if self.file.suffix.lower() in PICTURES:
            image = read_picture(self.file)
            frames = [np.asarray(image if self.crop is None else image.crop(self.crop))]
        else:
            span, count = self.span, self.shape.frames
            if self.time is not None:
                span, count = (self.time, self.time + 3600), 1
            frames = list(frames_at(self.file, self.rate, span, count=count, crop=self.crop))
        if len(frames) < self.shape.frames:
            raise HyError(f"{self.file}: {len(frames)} frames where {self.shape.frames} are needed")
        return np.stack([_cover(frame, self.shape) for frame in frames])

    def caption(self, rng: np.random.Generator) -> str:
        """Draw a caption: fields of a structured one are left out and permuted; "" for a clip without any."""
        if self.fields is not None:
            return render(self.fields, rng, self.options)
        return self.texts[int(rng.integers(len(self.texts)))] if self.texts else ""

    def captions(self, count: int) -> tuple[str, ...]:
        """Return `count` captions that are always the same for this clip; equal ones come once."""
        seed = int(hashlib.sha256(self.id.encode()).hexdigest()[:15], 16)
        return tuple(dict.fromkeys(self.caption(np.random.default_rng((seed, one))) for one in range(count)))

    def sound(self) -> Sound | None:
        """Return the sound of the frames, None without sound."""
        found = (
            None if self.file.suffix.lower() in PICTURES or self.time is not None else sound_format(self.file)
        )
        if found is None:
            return None
        start = self.span[0] if self.span else 0.0
        pieces = list(sound(self.file, *found, (start, start + self.shape.frames / self.rate)))
        return Sound(np.concatenate(pieces, axis=1), found[0]) if pieces else None


class SetSource:
    """The clips of a set that fit its buckets: a `hy_core.data.DataSource` of finite length.

    `folder` is that of `hy data run`, `name` the set's. `frames` are the durations of the buckets, by default the set's
    own; `area` their pixels a frame, by default the set's; `fps` the rate of training, by default the set's, else each
    file's own. Sides are multiples of `multiple`. `assignment` tells what fits no bucket, and why; its indices are
    those of the table's rows, and `rows` those of the clips of this source.
    """

    def __init__(
        self,
        folder: Path | str,
        name: str,
        *,
        frames: Sequence[int] = (),
        area: int = 0,
        aspects: Sequence[float] = ASPECTS,
        multiple: int = 16,
        fps: float | None = None,
        enlarge: float = 1.0,
        options: RenderOptions | None = None,
    ) -> None:
        self.folder, self.name, self.options = Path(folder), name, options or RenderOptions()
        stated = _stated(self.folder, name)
        self.fps = fps or stated.get("fps")
        lengths = list(frames) or [(stated["frames"] - 1) // 4 * 4 + 1]
        area = area or stated["height"] * stated["width"]
        self.buckets = make_buckets(lengths, area, aspects, multiple)
        self._table = _read(self.folder / "sets" / f"{name}.parquet")
        self.assignment = self._assigned(enlarge)
        self.rows = np.flatnonzero(self.assignment.bucket >= 0)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> SetClip:
        if not 0 <= index < len(self.rows):
            raise IndexError(index)
        row = self._table.slice(int(self.rows[index]), 1).to_pylist()[0]
        start, stop = row["start"] or 0.0, row["stop"]
        stored = row.get("caption_fields")
        return SetClip(
            id=row["id"],
            file=ClipRecord(read_path(row["path"]), home=self.folder).file,
            shape=self.shape(index),
            rate=float(self.fps or row["fps"] or 1.0),
            span=None if stop is None else (start, stop),
            crop=None if row.get("crop") is None else tuple(row["crop"]),
            time=row.get("time"),
            texts=tuple(row.get("captions") or ()),
            fields=StructuredCaption.from_json(stored) if stored else None,
            options=self.options,
        )

    def shape(self, index: int) -> ClipShape:
        """Return the shape of a clip, that of its bucket."""
        return self.buckets[self.assignment.bucket[self.rows[index]]]

    @property
    def bucketed(self) -> Assignment:
        """The buckets of the clips by their indices here, for `BucketSampler`."""
        return Assignment(self.buckets, self.assignment.bucket[self.rows], self.assignment.reasons)

    @property
    def concepts(self) -> np.ndarray:
        """The concept of each clip, int [N], -1 without one."""
        if "concept" not in self._table.column_names:
            return np.full(len(self), -1)
        column = self._table["concept"].fill_null(-1).to_numpy()
        return np.asarray(column, np.int64)[self.rows]

    @property
    def fingerprint(self) -> str:
        """16 hex digits of all that clips depend on."""
        digest = hashlib.sha256(repr((self.buckets, self.fps, self.options)).encode())
        digest.update(self.assignment.bucket.tobytes())
        for name in ("id", "crop", "captions", "caption_fields"):
            if name in self._table.column_names:
                digest.update(json.dumps(self._table[name].to_pylist()).encode())
        return digest.hexdigest()[:16]

    def _assigned(self, enlarge: float) -> Assignment:
        table = self._table
        height, width, frames = (_numbers(table, name) for name in ("height", "width", "frames"))
        for index, crop in enumerate(table["crop"].to_pylist() if "crop" in table.column_names else ()):
            if crop is not None:
                width[index], height[index] = crop[2] - crop[0], crop[3] - crop[1]
        if "time" in table.column_names:
            frames = np.ones(len(table), np.int64)
        elif self.fps:
            length = _floats(table, "stop") - _floats(table, "start")
            counted = np.floor(length * self.fps + 0.25)  # a last frame may begin a quarter of a frame early
            frames = np.where((frames == 1) | np.isnan(length), np.minimum(frames, 1), counted).astype(
                np.int64
            )
        return assign(self.buckets, frames, height, width, enlarge)


def _cover(frame: np.ndarray, shape: ClipShape) -> np.ndarray:
    scale = max(shape.height / frame.shape[0], shape.width / frame.shape[1])
    height = max(shape.height, round(frame.shape[0] * scale))
    width = max(shape.width, round(frame.shape[1] * scale))
    if (height, width) != frame.shape[:2]:
        kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        frame = cv2.resize(np.ascontiguousarray(frame), (width, height), interpolation=kind)
    top, left = (height - shape.height) // 2, (width - shape.width) // 2
    return frame[top : top + shape.height, left : left + shape.width]


def _stated(folder: Path, name: str) -> dict[str, Any]:
    from hy_data.select.decide import read_decision

    sets = read_decision(folder).sets
    found = next((one for one in sets if one["name"] == name), None)
    if found is None:
        raise MissingError(
            f"{folder} has no set {name!r}", f"it has {', '.join(one['name'] for one in sets)}"
        )
    return found


def _read(path: Path) -> Any:
    with open_scores(path) as file:
        have = set(file.schema_arrow.names)
        table = file.read([name for name in _COLUMNS if name in have])
    if not len(table):
        raise UsageError(f"the set {path.stem} is empty", "hy data report tells what it drops")
    return table.combine_chunks()


def _numbers(table: Any, name: str) -> np.ndarray:
    return np.nan_to_num(_floats(table, name)).astype(np.int64)


def _floats(table: Any, name: str) -> np.ndarray:
    import pyarrow as pa

    return np.array(table[name].cast(pa.float64()).to_numpy(), np.float64)
