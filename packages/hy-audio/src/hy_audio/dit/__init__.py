"""The paper's audio network, and sampling that works for every audio network."""

from __future__ import annotations

from hy_audio.dit.config import AudioDiTConfig
from hy_audio.dit.model import AudioDiT
from hy_audio.dit.sampling import sample_audio

__all__ = ["AudioDiT", "AudioDiTConfig", "sample_audio"]
