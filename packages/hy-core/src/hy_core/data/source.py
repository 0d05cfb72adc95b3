"""Sources of training clips: finite, indexed, with known shapes and a fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from hy_core.data.split import Split
from hy_core.errors import HyError, UsageError
from hy_core.tables import from_table

if TYPE_CHECKING:
    import numpy as np

    from hy_core.plugins import Plugins
    from hy_core.request import Sound

T = TypeVar("T")


class ClipShape(NamedTuple):
    """The size of a clip's video: frames T, height H and width W in pixels; all 0 for sound alone."""

    frames: int
    height: int
    width: int


class Clip(Protocol):
    """One clip of a source; nothing is decoded or rendered before a method is called.

    A class that names this protocol as its base inherits the methods that have a body: no sound, no annotations, and
    the median of the frames as the background.
    """

    @property
    def fps(self) -> float:
        """Frames a second."""
        ...

    def video(self) -> np.ndarray:
        """Return the frames, uint8 [T, H, W, 3], RGB. `HyError` if the source has no pictures or can't be read."""
        ...

    def caption(self, rng: np.random.Generator) -> str:
        """Return a caption; clips with several, or whose captions are generated, draw one with `rng`."""
        ...

    def sound(self) -> Sound | None:
        """Return the sound, as long as the frames, or None without sound."""
        return None

    def annotations(self) -> Mapping[str, Any]:
        """Return what is known beyond pixels, by name, for plugins that train on it: see the source's own page."""
        return {}

    def background(self) -> np.ndarray:
        """Return an estimate of the picture without its foreground, [H, W, 3] in 0..255."""
        import numpy as np

        background: np.ndarray = np.median(self.video(), axis=0)
        return background


@dataclass(frozen=True)
class SourceSpec:
    """What a source is asked for.

    `name` is the source's registered name, for errors. `count` is the number of clips, 0 for as many as there are (a
    procedural source needs a number). Video sources take `frames`, `height` and `width` of the clips, at the source's
    own rate; sources of sound take lengths from their `options`. `group` consecutive clips (0..group-1, ...) last
    equally long, so that they can be stacked. `options` is the source's own table of the recipe. `shapes` are those of
    all buckets that are filled from the same files, if there are several: a source of files gives each clip to one of
    them.
    """

    name: str
    split: Split = "train"
    seed: int = 0
    count: int = 0
    frames: int = 17
    height: int = 64
    width: int = 64
    group: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    shapes: tuple[ClipShape, ...] = ()

    @property
    def label(self) -> str:
        """The table of the recipe, as errors name it."""
        return f"[data.sources.{self.name}]"

    def read_options(self, cls: type[T]) -> T:
        """Make the source's options, a dataclass, of its table; `UsageError` names an unknown key or wrong value."""
        return from_table(cls, dict(self.options), self.label)


class DataSource(Protocol):
    """A finite, indexed collection of clips. The clip at an index is the same in every run and process."""

    def __len__(self) -> int:
        """The number of clips."""
        ...

    def __getitem__(self, index: int) -> Clip:
        """Return a clip; `IndexError` outside of 0..len-1."""
        ...

    def shape(self, index: int) -> ClipShape:
        """Return the shape of a clip's video without decoding it."""
        ...

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change when any clip may have changed: the key of caches (see `fingerprint`)."""
        ...


def clip_key(source: DataSource, index: int) -> str:
    """Return the name of a clip for caches: equal names mean equal clips, in other runs and sources too.

    It is that of the source's method `key(index)`, if it has one, so that what was computed of a file stays valid when
    other files of the source change; else of the source's fingerprint.
    """
    own = getattr(source, "key", None)
    return str(own(index)) if own else f"{source.fingerprint}-{index}"


def left_out(source: DataSource) -> dict[str, int]:
    """Return how many clips a source leaves out, by reason: its attribute `left_out`, {} for one without."""
    return dict(getattr(source, "left_out", {}))


SourceFactory = Callable[[SourceSpec], DataSource]
"""What a plugin registers by `register_datasets`: a class or function of a `SourceSpec`."""


def fingerprint(spec: SourceSpec, *files: Path, version: int = 1) -> str:
    """Return a `DataSource.fingerprint` of a specification and the names, sizes and times of its files.

    `version` is the source's own: raise it when the same specification gives other clips.
    """
    facts: list[Any] = [version, asdict(spec)]
    for path in files:
        try:
            about = path.stat()
        except OSError as error:
            raise HyError(f"cannot open {path}: {error.strerror}") from error
        facts.append([str(path), about.st_size, about.st_mtime_ns])
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def open_source(spec: SourceSpec, plugins: Plugins) -> DataSource:
    """Make the source of a name that one of the loaded plugins registered.

    `UsageError` for a name that none registered, or for options that the source doesn't take.
    """
    known = plugins.datasets()
    if spec.name not in known:
        raise UsageError(
            f"data.source: no dataset {spec.name!r} in the recipe's plugins (they have: {', '.join(known) or 'none'})",
            "name the plugin that registers it in the recipe: plugins = [...]",
        )
    factory: SourceFactory = known[spec.name]
    return factory(spec)
