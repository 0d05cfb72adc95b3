"""A tagger without weights: music is what holds several notes of one scale, other sound is what is left.

Steady partials are looked for, and notes among them; a hum is one note, noise and speech hold none, and the partials
of a thing that was struck lie on no scale. What it can't know is in the documentation.
"""

from __future__ import annotations

import numpy as np

_SIZE, _HOP = 0.256, 0.064  # seconds of a spectrum, and from one to the next
_TOP = 4000.0  # Hz; partials higher up are no notes
_BAND = 32  # bins whose median is the floor that a partial stands out from
_OVER = 20.0  # times the floor: of a million points of noise one reaches it
_FAINT = 1e-3  # of the strongest partial at the moment: below it is a window's leakage
_APART = 3  # spectra from one to another without common samples, in both of which a steady partial is
_LASTS = 3  # spectra in which a note must be heard
# Minimum of music: notes, share of power in partials, agreement with a scale; with drums, notes and a beat.
_NOTES, _TONAL, _SCALE = 3, 0.35, 0.6
_MANY, _STRONG = 5, 0.6
_REST, _BEAT = 0.3, 0.4  # another sound: share of power outside partials, and how little it repeats


def heuristic(windows: np.ndarray, rate: int) -> dict[str, np.ndarray]:
    """Tell music from other sound in windows of mono sound, float32 [B, N] at `rate` Hz, 2 s long.

    Returns 0 or 1, float32 [B], for "music" and "sound"; "speech" is 0, Silero VAD finds it. A window that isn't
    silent has at least one of them. Windows of under half a second are sound.
    """
    found = [_tags(np.asarray(window, np.float64), rate) for window in windows]
    tags = np.array(found, np.float32).reshape(-1, 2)
    return {"speech": np.zeros(len(tags), np.float32), "music": tags[:, 0], "sound": tags[:, 1]}


def _tags(window: np.ndarray, rate: int) -> tuple[bool, bool]:
    if not np.any(window):
        return False, False
    notes, tonal, scale = tonality(window, rate)
    if notes < _NOTES or scale < _SCALE:
        return False, True
    beat = regularity(window, rate)
    if tonal < _TONAL and (notes < _MANY or beat < _STRONG):
        return False, True
    return True, 1 - tonal > _REST and beat < _BEAT


def tonality(window: np.ndarray, rate: int) -> tuple[int, float, float]:
    """Notes that are held, the share of power in steady partials, and how well these lie on a tempered scale (0 to 1).

    `window` is float [N]; a scale of any tuning will do.
    """
    size, hop = round(_SIZE * rate), round(_HOP * rate)
    if len(window) < size + (_APART + 1) * hop:
        return 0, 0.0, 0.0
    cut = np.lib.stride_tricks.sliding_window_view(window, size)[::hop]
    whole = np.abs(np.fft.rfft(cut * np.hanning(size))) ** 2
    bins = min(round(_TOP * size / rate), whole.shape[1] - 3) // _BAND * _BAND
    power = whole[:, :bins]
    floor = np.repeat(np.median(power.reshape(len(power), -1, _BAND), 2), _BAND, 1)
    stands = (power > _OVER * floor) & (power > _FAINT * power.max(1, keepdims=True))
    inner = power[:, 1:-1]
    stands[:, 1:-1] &= (inner > power[:, :-2]) & (inner >= power[:, 2:])
    stands[:, : round(60 * size / rate)] = stands[:, -2:] = False
    steady = _steady(stands)
    moments, places = np.nonzero(steady)
    if not len(places):
        return 0, 0.0, 0.0
    held = np.stack([whole[moments, places + shift] for shift in (-2, -1, 0, 1, 2)]).sum(0)
    tonal = float(held.sum() / max(whole.sum(), 1e-30))
    below, here, above = (np.log(whole[moments, places + shift] + 1e-30) for shift in (-1, 0, 1))
    bend = below - 2 * here + above
    pitch = 12 * np.log2((places + np.where(bend < 0, 0.5 * (below - above) / bend, 0.0)) * rate / size / 440)
    weight = np.sqrt(held)
    turn = (weight * np.exp(2j * np.pi * pitch)).sum() / weight.sum()
    tuning = np.angle(turn) / (2 * np.pi)
    heard: dict[int, int] = {}
    for moment in np.unique(moments):
        for note in {round(one - tuning) for one in _roots(pitch[moments == moment])}:
            heard[note] = heard.get(note, 0) + 1
    return sum(count >= _LASTS for count in heard.values()), tonal, float(abs(turn))


def regularity(window: np.ndarray, rate: int) -> float:
    """How well the onsets in `window` repeat after 0.2 to 1 s: the highest correlation, 0 to 1."""
    size, hop = round(0.032 * rate), round(0.01 * rate)
    cut = np.lib.stride_tricks.sliding_window_view(window, size)[::hop]
    level = np.log(np.abs(np.fft.rfft(cut * np.hanning(size))) ** 2 + 1e-6)
    rise = np.maximum(np.diff(level, axis=0), 0).mean(1)
    rise = rise - rise.mean()
    best = 0.0
    for lag in range(20, min(101, len(rise) - 20)):
        one, other = rise[lag:], rise[:-lag]
        best = max(best, float((one * other).sum() / max(np.sqrt((one**2).sum() * (other**2).sum()), 1e-30)))
    return best


def _steady(stands: np.ndarray) -> np.ndarray:
    """Partials [T, F] that stand nearly as high three spectra before or after."""
    wide = stands.copy()
    wide[:, 1:] |= stands[:, :-1]
    wide[:, :-1] |= stands[:, 1:]
    again = np.zeros_like(stands)
    again[:-_APART] |= wide[_APART:]
    again[_APART:] |= wide[:-_APART]
    return stands & again


def _roots(pitch: np.ndarray) -> list[float]:
    """Pitches, in semitones, of which the others at a moment are overtones."""
    left, found = np.sort(pitch), []
    while len(left):
        found.append(float(left[0]))
        ratio = 2 ** ((left - left[0]) / 12)
        left = left[np.abs(ratio - np.round(ratio)) > 0.06]
    return found
