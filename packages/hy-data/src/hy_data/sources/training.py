"""Sources of hy-train: `folder`, a data set of any known layout, and `set`, a set that `hy data` chose."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hy_core.data import ClipRecord, ClipShape, SourceSpec, check_split, fingerprint, select_split
from hy_core.errors import HyError, UsageError
from hy_core.media import timeline
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
        measured = [(record, *self._extent(record)) for record in records]
        self.clips = [one for one in measured if one[2] >= spec.frames]
        if not self.clips:
            raise UsageError(
                f"{path}: none of {len(records)} clips has {spec.frames} frames",
                "take shorter buckets, or a lower fps",
            )
        self.fingerprint = fingerprint(spec, *sorted({record.file for record, _, _ in self.clips}))

    def __len__(self) -> int:
        return self.spec.count or len(self.clips)

    def __getitem__(self, index: int) -> SetClip:
        if not 0 <= index < len(self):
            raise IndexError(index)
        spec = self.spec
        rng = np.random.default_rng(seeded(spec.seed, 5, spec.frames, spec.height, spec.width, index))
        record, rate, count = self.clips[int(rng.integers(len(self.clips))) if spec.count else index]
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
        self.source = SetSource(
            options.folder,
            options.name,
            frames=[spec.frames],
            area=spec.height * spec.width,
            aspects=[spec.width / spec.height],
            fps=options.fps or None,
            enlarge=options.enlarge,
        )
        wanted = self.shape(0)
        if list(self.source.buckets) != [wanted]:
            raise UsageError(
                f"{spec.label}: sets have no shape {spec.frames}x{spec.height}x{spec.width}",
                "height and width must be multiples of 16",
            )
        files = {index: ClipRecord(self.source[index].file) for index in range(len(self.source))}
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

    def shape(self, index: int) -> ClipShape:
        """Return the shape that the specification asks for; all clips have it."""
        return ClipShape(self.spec.frames, self.spec.height, self.spec.width)
