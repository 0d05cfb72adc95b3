"""Steps of a data pipeline that make talking-head clips fit for training an avatar; each is usable alone."""

from __future__ import annotations

from hy_core.stage import Clip, Stage, run

from hy_avatar.stages.heads import TalkingHead
from hy_avatar.stages.points import FaceMask, FacePoints
from hy_avatar.stages.poses import PersonPose
from hy_avatar.stages.voices import LipSync, SpeechFeatures, VoicePresence

__all__ = [
    "Clip",
    "FaceMask",
    "FacePoints",
    "LipSync",
    "PersonPose",
    "SpeechFeatures",
    "Stage",
    "TalkingHead",
    "VoicePresence",
    "run",
]
