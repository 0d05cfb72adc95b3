"""Is there sound in a clip, and how high does it reach?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from hy_core.data import ClipRecord, Stage
from hy_core.media import timeline
from hy_core.options import option

from hy_audio.loudness import rms_levels

_RATE = 16000
QUIET, BELOW = -50.0, 40.0  # dBFS, and dB below the clip's 95th percentile
_WINDOW, _BAND = 4096, 200.0  # samples of a spectrum, Hz of a band
_DEPTH = 80.0  # dB below the loudest band: lower there is nothing


class Presence(Stage):
    """Drop clips without sound or with silence for most of the time (the paper: over 80%)."""

    name = "sound-presence"

    @dataclass(frozen=True)
    class Options:
        """What is too silent."""

        most_silence: float = option(0.8, help="Largest share of silent time.", minimum=0, maximum=1)

    def found(self, record: ClipRecord) -> tuple[dict[str, Any], str | None]:
        """Find `audio_present` and `silence_ratio`."""
        path, span = record.file, record.span
        extent = timeline.measure(path)
        if not extent.sounds:
            return {"audio_present": False}, "no sound stream"
        span = span or ((0.0, extent.duration) if extent.frames else None)
        level = rms_levels(timeline.sound(path, _RATE, 1, span, origin=extent.start), _RATE)
        # Time that the stream doesn't fill is silent too.
        count = max(len(level), round((span[1] - span[0]) / 0.02) if span else 0)
        share = 1 - (1 - silence(level)) * len(level) / count if count else 1.0
        fields = {"audio_present": True, "silence_ratio": round(share, 4)}
        most = self.options.most_silence
        return fields, f"{share:.0%} silent, over {most:.0%}" if share > most else None


def silence(level: np.ndarray) -> float:
    """Return the share of silent 20 ms of levels in dBFS [T]: below -50, or 40 dB below the 95th percentile."""
    if not len(level):
        return 1.0
    return float((level < max(QUIET, float(np.quantile(level, 0.95)) - BELOW)).mean())


class Bandwidth(Stage):
    """Drop clips whose sound has no treble: low rates, or resampled or compressed from such.

    HunyuanVideo-Foley asks for an effective rate of 32 kHz, which is 16 kHz of bandwidth.
    """

    name = "sound-bandwidth"

    @dataclass(frozen=True)
    class Options:
        """What is too dull."""

        least: float = option(16000.0, help="Lowest bandwidth, in Hz.", minimum=0, maximum=96000)

    def found(self, record: ClipRecord) -> tuple[dict[str, Any], str | None]:
        """Find `bandwidth` in Hz."""
        path, span = record.file, record.span
        extent = timeline.measure(path)
        form = timeline.sound_format(path)
        if form is None:
            return {}, "no sound stream"
        rate = form[0]
        reach = bandwidth(timeline.sound(path, rate, 1, span, origin=extent.start), rate)
        least = self.options.least
        return {
            "bandwidth": round(reach)
        }, f"reaches only {reach:.0f} Hz of {least:.0f}" if reach < least else None


def bandwidth(pieces: Iterable[np.ndarray], rate: int) -> float:
    """The frequency in Hz up to which a sound reaches: bands of 200 Hz less than 80 dB below the loudest.

    Pieces are float32 [channels, n].
    """
    window, total = np.hanning(_WINDOW), np.zeros(_WINDOW // 2 + 1)
    held, count = np.zeros(0, np.float32), 0
    for piece in pieces:
        held = np.concatenate([held, np.atleast_2d(piece).mean(0)])
        whole = len(held) // _WINDOW
        if whole:
            cut = held[: whole * _WINDOW].reshape(whole, _WINDOW)
            total += (np.abs(np.fft.rfft(cut * window)) ** 2).sum(0)
            held, count = held[whole * _WINDOW :], count + whole
    if not count and len(held):
        total += np.abs(np.fft.rfft(np.pad(held, (0, _WINDOW - len(held))) * window)) ** 2
    width = max(round(_BAND * _WINDOW / rate), 1)
    bands = np.add.reduceat(total, np.arange(0, len(total), width))
    if not bands.max() > 0:
        return 0.0
    reached = np.flatnonzero(bands > bands.max() * 10 ** (-_DEPTH / 10))
    return float(min((reached[-1] + 1) * width * rate / _WINDOW, rate / 2))
