"""Progress of a run, and where its frames go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from hy_core.media import Writer


@dataclass(frozen=True)
class Progress:
    """One progress report. `stage` is load, encode, sample, decode or finish; `clip` counts from 0 to `clips`.

    `step` of `steps` counts sampling steps or decoded frames, and `seconds` is what the last one took. While
    sampling, `preview()` decodes one frame of the current estimate of the clip: uint8 [H, W, 3].
    """

    stage: str
    clip: int = 0
    clips: int = 1
    detail: str = ""
    step: int = 0
    steps: int = 0
    seconds: float = 0.0
    preview: Callable[[], np.ndarray] | None = None


Callback = Callable[[Progress], None]
"""Called with each progress report, in the thread of the run."""

Sink = Callable[[int, Mapping[str, Any]], "Writer | None"]
"""`sink(index, record)`: the writer for the frames of that request, with its provenance record, or None."""
