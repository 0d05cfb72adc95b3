"""Steps of a data pipeline that make talking-head clips fit for training an avatar; each is usable alone."""

from __future__ import annotations

from hy_core.data import ClipRecord, Stage, run_stages

from hy_avatar.stages.heads import TalkingHead
from hy_avatar.stages.points import FaceMask, FacePoints
from hy_avatar.stages.poses import PersonPose
from hy_avatar.stages.voices import LipSync, SpeechFeatures, VoicePresence

__all__ = [
    "ClipRecord",
    "FaceMask",
    "FacePoints",
    "LipSync",
    "PersonPose",
    "SpeechFeatures",
    "Stage",
    "TalkingHead",
    "VoicePresence",
    "run_stages",
]
