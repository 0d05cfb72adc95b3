"""What one guidance branch of the network sees besides the noisy video."""

from __future__ import annotations

from hy_core.condition.condition import Condition
from hy_core.condition.contributions import (
    ContextFrames,
    FixedFrame,
    FrameSlicer,
    TextTokens,
    TilingFor,
    Time,
)
from hy_core.condition.encoding import EncodingContext
from hy_core.condition.merging import form_of, join, merge, mergeable
from hy_core.condition.windows import window

__all__ = [
    "Condition",
    "ContextFrames",
    "EncodingContext",
    "FixedFrame",
    "FrameSlicer",
    "TextTokens",
    "TilingFor",
    "Time",
    "form_of",
    "join",
    "merge",
    "mergeable",
    "window",
]
