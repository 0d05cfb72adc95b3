"""How a soundtrack is put together: loudness, channels, the clip's own sound, windows."""

from __future__ import annotations

from dataclasses import dataclass

from hy_core.errors import UsageError

from hy_audio.containers import EXISTING
from hy_audio.loudness import LUFS, PEAK


@dataclass(frozen=True)
class SoundtrackOptions:
    """How a soundtrack is put together.

    `lufs`: integrated loudness in LUFS, -60 to 0, None leaves it; `peak`: highest true peak in dBTP, -20 to 0;
    `channels`: 1, 2, or None for the generator's; `existing`: "replace" the sound of the clip, "keep" it as the first
    of two tracks, or "mix" both, the new one louder by `balance` LU; `overlap`: seconds that neighbouring windows
    share; `cuts`: windows end at scene changes. `UsageError` for other values.
    """

    lufs: float | None = LUFS
    peak: float = PEAK
    channels: int | None = None
    existing: str = "replace"
    balance: float = 0.0
    overlap: float = 1.0
    cuts: bool = True

    def __post_init__(self) -> None:
        if self.existing not in EXISTING:
            raise UsageError(f"existing sound {self.existing!r}", f"one of {', '.join(EXISTING)}")
        if self.channels not in (None, 1, 2):
            raise UsageError(f"{self.channels} channels", "1 is mono, 2 is stereo")
        if self.lufs is not None and not -60 <= self.lufs <= 0:
            raise UsageError(f"{self.lufs:g} LUFS is out of range", "from -60 to 0; -16 is usual")
        if not -20 <= self.peak <= 0:
            raise UsageError(f"a peak of {self.peak:g} dBTP is out of range", "from -20 to 0; -1 is usual")
