"""From requests to clips: encode prompts, fill conditions, sample latents, decode frames, finish clips."""

from __future__ import annotations

from hy_core.pipeline.progress import Callback, Progress, Sink
from hy_core.pipeline.run import Run

__all__ = ["Callback", "Progress", "Run", "Sink"]
