"""Steps of a data pipeline that look after the sound of clips; each is usable alone."""

from __future__ import annotations

from hy_core.data import ClipRecord, Stage, run_stages

from hy_audio.stages.captions import SoundCaption
from hy_audio.stages.consistency import Consistency
from hy_audio.stages.kinds import SoundKind
from hy_audio.stages.presence import Bandwidth, Presence

__all__ = [
    "Bandwidth",
    "ClipRecord",
    "Consistency",
    "Presence",
    "SoundCaption",
    "SoundKind",
    "Stage",
    "run_stages",
]
