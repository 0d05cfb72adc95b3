"""Sources of hy-train: `folder`, a data set of any known layout, and `set`, a set that `hy data` chose."""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from pathlib import Path

import numpy as np
from hy_core.data import ClipRecord, ClipShape, SourceSpec, check_split, fingerprint, select_split
from hy_core.data.keys import cache_key
from hy_core.errors import HyError, UsageError
from hy_core.media import probe, read_picture, timeline
from hy_core.media.names import PICTURES
from hy_core.training import seeded

from hy_data.formats.read import read_dataset
from hy_data.source import SetClip, SetSource


@dataclass(frozen=True)
class FolderOptions:
    """The table `[data.sources.folder]`.

    `path` is a folder or file of a layout that `hy data import` reads; `fps` the rate that clips are brought to, 0 for
    each file's own; `heldout` the share of files that training doesn't see.
    """

    path: str = ""
    fps: float = 0.0
    heldout: float = 0.0


class FolderSource:
    """Clips of a data set with captions: `spec.count` windows drawn from them, or the first of each with a count of 0.

    Pictures are clips of one frame. Clips are scaled until they cover the shape and cropped at the centre. `UsageError`
    if no clip of the split is long enough.
    """

    def __init__(self, spec: SourceSpec) -> None:
        self.spec, self.options = spec, spec.read_options(FolderOptions)
        if not self.options.path:
            raise UsageError(f"{spec.label}: no path is given", 'path = "clips/", of clips with captions')
        path = Path(self.options.path).expanduser()
        found = read_dataset(path, path.with_name(f"{path.name}-unpacked"))
        records = select_split(found.records, check_split(spec.split), self.options.heldout, str(path))
        self.left_out: dict[str, int] = {}
        """How many clips this bucket can't take, by reason."""
        self.clips = [one for one in map(self._measured, records) if one is not None]
        if not self.clips:
            raise UsageError(
                f"{path}: none of {len(records)} clips has {spec.frames} frames"
                if not spec.shapes
                else f"{path}: none of {len(records)} clips belongs into {'x'.join(map(str, self.shape(0)))}",
                "; ".join(f"{count} {why}" for why, count in self.left_out.items())
                or "take shorter buckets, or a lower fps",
            )
        self.fingerprint = fingerprint(spec, *sorted({record.file for record, _, _ in self.clips}))

    def __len__(self) -> int:
        return self.spec.count or len(self.clips)

    def __getitem__(self, index: int) -> SetClip:
        if not 0 <= index < len(self):
            raise IndexError(index)
        spec = self.spec
        rng = np.random.default_rng(seeded(spec.seed, 5, spec.frames, spec.height, spec.width, index))
        record, rate, count = self.clips[index % len(self.clips)]  # none comes again before all others came
        first = int(rng.integers(count - spec.frames + 1)) if spec.count else 0
        start = (record.span[0] if record.span else 0.0) + first / rate
        return SetClip(
            id=str(record.path),
            file=record.file,
            shape=self.shape(index),
            rate=rate,
            span=(start, start + (spec.frames + 0.25) / rate),
            crop=record.crop,
            texts=record.captions,
        )

    def shape(self, index: int) -> ClipShape:
        """Return the shape that the specification asks for; all clips have it."""
        return ClipShape(self.spec.frames, self.spec.height, self.spec.width)

    def key(self, index: int) -> str:
        """Return a name of the clip's content: it stays when other files of the folder change."""
        return clip_content_key(self[index])

    def _measured(self, record: ClipRecord) -> tuple[ClipRecord, float, int] | None:
        """A clip with its rate and frames, None for one that is left out; the reason is counted."""
        rate, count = self._extent(record)
        shapes = self.spec.shapes or (self.shape(0),)
        why = "" if count else "can't be read"
        if count and not any(shape.frames <= count for shape in shapes):
            why = f"shorter than {min(shape.frames for shape in shapes)} frames at {rate:g} a second"
        if not why and self.spec.shapes and self._bucket(record, count) != self.shape(0):
            return None  # another bucket has it
        if why:
            self.left_out[why] = self.left_out.get(why, 0) + 1
            return None
        return record, rate, count

    def _bucket(self, record: ClipRecord, count: int) -> ClipShape | None:
        """The bucket of a clip among those of the recipe: the longest that it fills, then the nearest aspect ratio.

        A shorter one is taken where all longest are over 1.5 times off its aspect ratio.
        """
        height, width = _size(record)
        off = {
            shape: abs(log(width / height * shape.height / shape.width))
            for shape in self.spec.shapes
            if shape.frames <= count
        }
        return min(
            off,
            key=lambda shape: (off[shape] > log(1.5), -shape.frames, off[shape], -shape.height * shape.width),
            default=None,
        )

    def _extent(self, record: ClipRecord) -> tuple[float, int]:
        """The rate of a clip in training and how many frames it has then; no frames for a file that can't be read."""
        if record.file.suffix.lower() in PICTURES:
            return 1.0, 1
        try:
            rate = self.options.fps or timeline.even_rate(record.file)
            duration = timeline.measure(record.file).duration
        except HyError:
            return 1.0, 0
        start, stop = record.span or (0.0, duration)
        return rate, int((min(stop, duration) - start) * rate + 0.25)


def clip_content_key(clip: SetClip) -> str:
    """Return a name of what a clip shows: its file as it is now, and the part of it."""
    about = clip.file.stat()
    facts = [
        clip.id,
        about.st_size,
        about.st_mtime_ns,
        clip.span,
        clip.crop,
        clip.time,
        clip.shape,
        clip.rate,
    ]
    return cache_key(facts)


def _size(record: ClipRecord) -> tuple[int, int]:
    """Height and width of a clip's picture, cropped; a square for a file that can't be read."""
    if record.crop is not None:
        left, top, right, bottom = record.crop
        return bottom - top, right - left
    try:
        if record.file.suffix.lower() in PICTURES:
            picture = read_picture(record.file)
            return picture.height, picture.width
        found = probe(record.file)
    except HyError:
        return 1, 1
    return found.height, found.width


@dataclass(frozen=True)
class SetOptions:
    """The table `[data.sources.set]`.

    `folder` is that of `hy data run`, `name` the set's; `fps` the rate that clips are brought to, 0 for the set's;
    `enlarge` how many times clips may be enlarged; `heldout` the share of files that training doesn't see.
    """

    folder: str = ""
    name: str = ""
    fps: float = 0.0
    enlarge: float = 1.0
    heldout: float = 0.0


class SetTrainingSource:
    """The clips of a set in one shape: all that are long and large enough, or the first `spec.count` of them."""

    def __init__(self, spec: SourceSpec) -> None:
        self.spec, options = spec, spec.read_options(SetOptions)
        if not options.folder or not options.name:
            raise UsageError(f"{spec.label}: no set is given", 'folder = "sets/", name = "256p"')
        area = spec.height * spec.width
        wanted = self.shape(0)
        # Buckets of other areas are other resolutions of the same clips.
        alike = [one for one in spec.shapes or (wanted,) if abs(one.height * one.width / area - 1) < 0.25]
        self.source = SetSource(
            options.folder,
            options.name,
            frames=sorted({shape.frames for shape in alike}),
            area=spec.height * spec.width,
            aspects=sorted({shape.width / shape.height for shape in alike}),
            fps=options.fps or None,
            enlarge=options.enlarge,
        )
        if wanted not in self.source.buckets:
            raise UsageError(
                f"{spec.label}: sets have no shape {spec.frames}x{spec.height}x{spec.width}",
                "height and width must be multiples of 16",
            )
        self.left_out = dict(self.source.assignment.reasons)
        files = {
            index: ClipRecord(self.source[index].file)
            for index in range(len(self.source))
            if self.source.shape(index) == wanted
        }
        chosen = (
            select_split(files.values(), check_split(spec.split), options.heldout, spec.label)
            if files
            else []
        )
        kept = {id(record) for record in chosen}
        indices = [index for index, record in files.items() if id(record) in kept]
        self.indices = indices[: spec.count] if spec.count else indices
        if not self.indices:
            reasons = ", ".join(f"{why} ({count})" for why, count in self.source.assignment.reasons.items())
            raise UsageError(
                f"{options.folder}: no clip of the set {options.name!r} fits {wanted.frames} frames of "
                f"{wanted.width}x{wanted.height}",
                reasons or "change heldout",
            )
        self.fingerprint = fingerprint(spec, *sorted({files[index].path for index in self.indices}))

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> SetClip:
        if not 0 <= index < len(self.indices):
            raise IndexError(index)
        return self.source[self.indices[index]]

    def key(self, index: int) -> str:
        """Return a name of the clip's content: it stays when other clips of the set change."""
        return clip_content_key(self[index])

    def shape(self, index: int) -> ClipShape:
        """Return the shape that the specification asks for; all clips have it."""
        return ClipShape(self.spec.frames, self.spec.height, self.spec.width)
