"""What `hy data cache` does, for scripts too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hy_core.data.store import TensorStore
from hy_core.files import write_json
from hy_core.models import find, fingerprint, precision
from hy_core.text import TextEncoder
from hy_core.vae.tiling import Tiling
from hy_core.weights import load_vae

from hy_data.cache.fill import Filled, fill_latents, fill_texts
from hy_data.cache.keys import encoders_fingerprint
from hy_data.captions.duplicates import find_repeated, warning
from hy_data.source import SetSource

_SHOWN = 5  # failures in the notes


@dataclass(frozen=True)
class CacheRequest:
    """What to cache; the fields are the options of `hy data cache`."""

    folder: Path
    name: str
    model: str = "pocket"
    captions: int = 4
    frames: tuple[int, ...] = ()
    area: int = 0
    fps: float | None = None
    enlarge: float = 1.0
    rows: int = 4
    tiling: str = "off"
    dtype: str = "float16"
    device: str = "auto"
    precision: str = "auto"
    verify: bool = False

    def source(self) -> SetSource:
        """Open the set with the buckets of this request."""
        return SetSource(
            self.folder, self.name, frames=self.frames, area=self.area, fps=self.fps, enlarge=self.enlarge
        )


@dataclass(frozen=True)
class CacheReport:
    """What is cached now; `unfit` counts the clips that fit no bucket, by reason."""

    clips: int
    latents: Filled
    texts: Filled
    unfit: dict[str, int]
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        lines = [
            f"{self.clips} clips: latents {self._part(self.latents)}",
            f"texts {self._part(self.texts)}",
        ]
        lines += [f"not used: {count} with {reason}" for reason, count in self.unfit.items()]
        return "\n".join(lines)

    @staticmethod
    def _part(filled: Filled) -> str:
        failed = f", {len(filled.failed)} failed" if filled.failed else ""
        return f"{filled.found} there already, {filled.computed} computed{failed}"


def stores(folder: Path) -> tuple[TensorStore, TensorStore]:
    """Return the caches of a folder: of latents and of text features."""
    return TensorStore(folder / "cache" / "latents"), TensorStore(folder / "cache" / "texts")


def fill(
    request: CacheRequest,
    start: Callable[[str, int], Any] = lambda *_: None,
    advance: Callable[[Any, int], None] = lambda *_: None,
) -> CacheReport:
    """Fill the caches for a request; `start` and `advance` show progress.

    `cache/SET.json` records the request and the failures. `UsageError` for a set without clips that fit, `HyError` and
    `MissingError` for models that can't be loaded.
    """
    source, spec = request.source(), find(request.model)
    latents, texts = stores(request.folder)
    notes = [line for store in (latents, texts) for line in store.check(request.verify)]
    kinds = precision(spec.layout, request.device, request.precision)
    clips = [source[index] for index in range(len(source))]
    task = start("latents", len(clips))
    made = fill_latents(
        latents,
        clips,
        lambda: load_vae(spec.vae, kinds.device, kinds.vae).eval().requires_grad_(False),
        fingerprint(spec.vae),
        rows=request.rows,
        dtype=request.dtype,
        tiling=_tiling(request, spec),
        progress=lambda count: advance(task, count),
    )
    encoded = Filled()
    if request.captions:
        pairs = {(text, clip.shape.frames == 1) for clip in clips for text in clip.captions(request.captions)}
        pairs |= {("", clip.shape.frames == 1) for clip in clips}  # for caption dropout
        task = start("texts", len(pairs))
        encoded = fill_texts(
            texts,
            sorted(pairs),
            lambda: TextEncoder.load(spec.folder, kinds.device, kinds.text),
            encoders_fingerprint(spec.folder),
            dtype=request.dtype,
            progress=lambda count: advance(task, count),
        )
    failures = list(made.failed.items())
    notes += [f"{name}: {why}" for name, why in failures[:_SHOWN]]
    notes += [f"and {len(failures) - _SHOWN} more clips failed"] if len(failures) > _SHOWN else []
    notes += _about_captions([clip.texts[0] if clip.texts else "" for clip in clips])
    unfit = dict(source.assignment.reasons)
    stated = {name: str(one) if isinstance(one, Path) else one for name, one in asdict(request).items()}
    write_json(
        request.folder / "cache" / f"{request.name}.json",
        {
            "request": stated,
            "failed": made.failed,
            "unfit": unfit,
            "shapes": {
                "x".join(map(str, shape)): n for shape, n in Counter(one.shape for one in clips).items()
            },
        },
    )
    return CacheReport(len(clips), made, encoded, unfit, notes)


def _tiling(request: CacheRequest, spec: Any) -> Tiling | None:
    from hy_core.models import configs

    return Tiling.named(request.tiling, configs(spec)[1])


def _about_captions(captions: list[str]) -> list[str]:
    empty = sum(not text for text in captions)
    notes = [f"{empty} of {len(captions)} clips have no caption: add the stage caption"] if empty else []
    if line := warning(find_repeated([text for text in captions if text]), len(captions)):
        notes.append(line)
    return notes
