"""Captions from measurements: what the stages before found, and the colours of a few frames.

No model looks at the clip, so nothing here names what it shows beyond faces, people, text and colours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from hy_core.data import ClipRecord

from hy_data.captions.backends.base import Captioner, tags_of
from hy_data.captions.repair import Repaired
from hy_data.captions.schema import StructuredCaption, clean_tags

_HUES = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
_HUE_ENDS = np.array([15, 45, 70, 165, 195, 260, 295, 345])  # degrees
_NUMBERS = ("no", "one", "two", "three", "four", "five")


class Measured(Captioner):
    """Fill the schema from measurements; fields that nothing was measured for stay empty.

    `camera_confidence` is the least `camera_motion_confidence` of a camera motion that is stated.
    """

    frames = 4
    height = 128

    def __init__(self, camera_confidence: float = 0.6) -> None:
        self.camera_confidence = camera_confidence

    def caption(self, record: ClipRecord, frames: np.ndarray, seconds: float) -> Repaired:
        results = record.results
        look = Look.of(frames)
        subject = _subject(_number(results.get("people")), _number(results.get("faces")))
        text = _number(results.get("text_area")) or 0.0
        parts = [f"A clip of {seconds:.0f} seconds" if seconds >= 1.5 else "A short clip"]
        if subject:
            parts.append(f"with {subject}")
        if text > 0.005:
            parts.append(f"{'and' if subject else 'with'} text in the picture")
        short = " ".join(parts) + f", mostly {look.colour}."
        details = [short, look.change]
        camera = camera_motion(record, self.camera_confidence)
        if camera:
            details.append(f"The camera motion is: {camera}.")
        return Repaired(
            StructuredCaption(
                short_description=short,
                dense_description=" ".join(details),
                background=f"mostly {look.rim} towards the edges of the picture",
                style=look.style,
                shot_type=_shot(_number(results.get("face_area"))),
                lighting=look.lighting,
                camera_motion=camera,
                tags=clean_tags(tags_of(record, "measured", _quality(record))),
            )
        )


def camera_motion(record: ClipRecord, least: float) -> str:
    """Return the camera motion of a record if its confidence is at least that, else ""."""
    motion, confidence = (
        record.results.get("camera_motion"),
        _number(record.results.get("camera_motion_confidence")),
    )
    return motion if isinstance(motion, str) and confidence is not None and confidence >= least else ""


class Look:
    """Colours, light and change of frames, in words."""

    def __init__(self, colour: str, rim: str, lighting: str, style: str, change: str) -> None:
        self.colour, self.rim, self.lighting, self.style, self.change = colour, rim, lighting, style, change

    @classmethod
    def of(cls, frames: np.ndarray) -> Look:
        """Measure frames, uint8 [T, H, W, 3]."""
        small = frames[:, :: max(1, frames.shape[1] // 64), :: max(1, frames.shape[2] // 64)].astype(
            np.float32
        )
        luma = small @ np.array([0.299, 0.587, 0.114], np.float32)
        mean, spread = float(luma.mean()), float(luma.std())
        red_green = small[..., 0] - small[..., 1]
        yellow_blue = (small[..., 0] + small[..., 1]) / 2 - small[..., 2]
        # Colourfulness of Hasler and Süsstrunk (2003), 0 for gray to about 100.
        colourful = float(np.hypot(red_green.std(), yellow_blue.std())) + 0.3 * float(
            np.hypot(red_green.mean(), yellow_blue.mean())
        )
        light = "dark" if mean < 60 else "bright" if mean > 180 else "of medium brightness"
        contrast = "low contrast" if spread < 30 else "high contrast" if spread > 75 else "medium contrast"
        style = (
            "in black and white or nearly so"
            if colourful < 8
            else "with strong colours"
            if colourful > 60
            else ""
        )
        margin = [max(1, size // 6) for size in small.shape[1:3]]
        rim = np.ones(small.shape[1:3], bool)
        rim[margin[0] : -margin[0] or None, margin[1] : -margin[1] or None] = False
        change = "The picture hardly changes."
        if len(luma) > 1:
            moved = float(np.abs(np.diff(luma, axis=0)).mean())
            change = (
                change
                if moved < 3
                else f"The picture changes {'much' if moved > 25 else 'somewhat'} over the clip."
            )
        return cls(_colour(small), _colour(small[:, rim]), f"{light}, {contrast}", style, change)


def _colour(pixels: np.ndarray) -> str:
    """Return the most frequent colour of pixels [..., 3] in 0..255, in words."""
    flat = pixels.reshape(-1, 3)
    high, low = flat.max(1), flat.min(1)
    span = np.maximum(high - low, 1e-6)
    red, green, blue = flat.T
    hue = np.select(
        [high == red, high == green],
        [(green - blue) / span % 6, (blue - red) / span + 2],
        (red - green) / span + 4,
    )
    is_gray = (high - low < 0.15 * high) | (high < 40)
    gray = np.select([high < 60, high > 200], [0, 2], 1)
    kinds = np.where(is_gray, 8 + gray, np.searchsorted(_HUE_ENDS, hue * 60, side="right") % 8)
    return (*_HUES, "black", "gray", "white")[int(np.bincount(kinds, minlength=11).argmax())]


def _subject(people: float | None, faces: float | None) -> str:
    if people:
        return f"{_count(people)} {'person' if people == 1 else 'people'}"
    return f"{_count(faces)} {'face' if faces == 1 else 'faces'}" if faces else ""


def _count(number: float) -> str:
    return _NUMBERS[int(number)] if number < len(_NUMBERS) else "several"


def _shot(face: float | None) -> str:
    """The framing, as the area of the main face tells it; "" without a face."""
    if not face:
        return ""
    return "close-up" if face > 0.08 else "medium shot" if face > 0.01 else "long shot"


def _quality(record: ClipRecord) -> str:
    height = _number(record.results.get("height"))
    return "" if height is None else f"{height:.0f} lines"


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    return float(value) if is_number and np.isfinite(value) else None
