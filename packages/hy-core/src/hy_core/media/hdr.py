"""Colours of HDR video (PQ and HLG, ITU-R BT.2100) as those of SDR."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

TRANSFERS = {16: "PQ", 18: "HLG"}
"""Transfer characteristics of ITU-T H.273 that are HDR."""
_WHITE = 203.0  # cd/m² of diffuse white (ITU-R BT.2408)
_PEAK = 1000.0  # cd/m² of the display that HLG is shown on
_KNEE = 0.7  # up to here, of white, light stays as it is
_TO_BT709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)  # linear BT.2020 to BT.709 (ITU-R BT.2087)
_LUMA = np.array([0.2627, 0.6780, 0.0593], np.float32)  # of BT.2020


def is_hdr(frame: Any) -> bool:
    """Whether a PyAV frame is coded in PQ or HLG."""
    return int(frame.color_trc) in TRANSFERS


def to_sdr(coded: np.ndarray, transfer: int) -> np.ndarray:
    """Convert coded BT.2020 colours uint16 [H, W, 3] to BT.709, uint8 [H, W, 3].

    Diffuse white is kept near white, brighter light is compressed smoothly into what is left above the knee.
    """
    light = _decoding(transfer)[coded]
    if TRANSFERS[transfer] == "HLG":  # the system gamma depends on the pixel's luminance
        light *= np.maximum(light @ _LUMA, 1e-6)[..., None] ** 0.2 * (_PEAK / _WHITE)
    light = np.maximum(light @ _TO_BT709.T, 0)
    peak = np.maximum(light.max(-1, keepdims=True), 1e-6)
    over = np.maximum((peak - _KNEE) / (1 - _KNEE), 0)
    light *= np.where(over > 0, _KNEE + (1 - _KNEE) * over / (1 + over), peak) / peak
    return np.asarray(_encoding()[np.minimum(light * 4095 + 0.5, 4095).astype(np.uint16)])


@lru_cache
def _decoding(transfer: int) -> np.ndarray:
    """Light, relative to diffuse white (PQ) or to the brightest (HLG), of each of 65536 coded values."""
    coded = np.arange(65536) / 65535
    if TRANSFERS[transfer] == "PQ":
        power = coded ** (1 / 78.84375)
        light = (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (1 / 0.1593017578125)
        return np.asarray(light * 10000 / _WHITE, np.float32)
    low = coded**2 / 3
    high = (np.exp((coded - 0.55991073) / 0.17883277) + 0.28466892) / 12
    return np.asarray(np.where(coded <= 0.5, low, high), np.float32)


@lru_cache
def _encoding() -> np.ndarray:
    """Return the uint8 code of linear light i / 4095, [4096], for a display with gamma 2.4 (ITU-R BT.1886)."""
    return np.asarray(((np.arange(4096) / 4095) ** (1 / 2.4) * 255).round(), np.uint8)
