"""How much text a clip shows, and a crop that leaves its subtitles out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from hy_core.data import JSON, ClipRecord, Score, Stage
from hy_core.options import option

from hy_data.boxes import Box, boxes_of, filled, largest_free, overlaps
from hy_data.frames import ClipFrames, FrameStage, View
from hy_data.ocr import TextBoxes, TextReader

_BAND = 0.25  # of the height, above and below, in which a subtitle lies
_LINE = 2.0  # width in heights from which on a single level box is a line of a subtitle
_SAME = 0.5  # overlap of boxes at the same place in two frames
_CENTRED = 0.03  # of the width that a single level box's middle may be off the picture's, to be a line
_MARGIN = 0.06  # of a line's height that its shadow may reach beyond its box
_CHOICE = 3  # frames that are decoded for each one that is examined
_STROKE = 60.0  # grey levels per two pixels of the strokes of letters
_LONGEST = 200  # characters of a text that are kept


class Text(FrameStage):
    """Find text in a few frames by OCR, and crop away subtitles in the upper or lower quarter of the picture.

    Finds `text_area` (largest share of the picture that text covers in a frame), `text_boxes` (most in a frame),
    `text_lasting` (share of the picture under boxes that stay in place through all frames), all of what remains after
    the crop; `subtitles` (lines found in the two bands), `subtitles_left` (of those, how many the crop doesn't remove)
    and, with `read`, `text`, a list of strings. Sets `crop` where that leaves all subtitles out and keeps at least
    `keep` of the area. A subtitle is level, and it is wider than two heights, centred, or at one place in two frames.

    Half of the frames are evenly spread. The others are those with most strokes in the two bands among three times as
    many, so that a subtitle that is shown for a short time isn't missed.
    """

    name = "text"
    scores = (
        Score("text_area", "largest share of the picture that text covers in a frame", "low"),
        Score("text_boxes", "most pieces of text in a frame", "low"),
        Score("text_lasting", "share of the picture under text that stays in place", "low"),
        Score("subtitles_left", "subtitle lines that no crop removes", "low"),
    )

    @dataclass(frozen=True)
    class Options(Stage.Options):
        """What is looked at, and how much a crop must keep."""

        frames: int = option(4, help="Frames that are examined.", minimum=1, maximum=64)
        height: int = option(
            360, help="Height in pixels at which they are examined.", minimum=64, maximum=2160
        )
        score: float = option(0.6, help="Least score of a piece of text.", minimum=0.3, maximum=1)
        crop: bool = option(True, help="Crop subtitles away.")
        keep: float = option(0.8, help="Least share of the area that a crop keeps.", minimum=0, maximum=1)
        read: bool = option(False, help="Also read the text and keep it.")

    @cached_property
    def _reader(self) -> TextReader:
        return TextReader(self.options.height)

    def setup(self) -> None:
        """Load the text models; `MissingError` if RapidOCR isn't installed."""
        _ = self._reader

    def views(self) -> tuple[View, ...]:
        return (View(self.options.height, count=self.options.frames * _CHOICE),)

    def measure(self, record: ClipRecord, frames: ClipFrames) -> tuple[Mapping[str, JSON | np.ndarray], None]:
        options = self.options
        pictures = frames[self.views()[0]]
        pictures = pictures[likely(pictures, options.frames)]
        size = (pictures.shape[1], pictures.shape[2])
        found = [self._reader.find(picture, options.score, read=options.read) for picture in pictures]
        subtitles = subtitle_lines(found, size)
        window, left = (0, 0, size[1], size[0]), len(subtitles)
        results: dict[str, JSON | np.ndarray] = {"subtitles": len(subtitles)}
        if len(subtitles) and options.crop:
            free = largest_free(_with_margin(subtitles), size)
            crop = scaled_crop(free, size, frames.size)
            if _area(crop) >= options.keep * frames.size[0] * frames.size[1]:
                window, left = free, 0
                offset = record.crop[:2] if record.crop else (0, 0)
                results["crop"] = [one + offset[index % 2] for index, one in enumerate(crop)]
        inside = [_inside(one.corners, window) for one in found]
        shape = (window[3] - window[1], window[2] - window[0])
        results |= {
            "text_area": round(max(filled(corners, shape) for corners in inside), 5),
            "text_boxes": max(len(corners) for corners in inside),
            "text_lasting": round(filled(lasting(inside), shape), 5),
            "subtitles_left": left,
        }
        if options.read:
            texts = dict.fromkeys(text[:_LONGEST] for one in found for text in one.texts)
            results["text"] = list(texts)
        return results, None


def likely(pictures: np.ndarray, count: int) -> list[int]:
    """Return which `count` of the frames [T, H, W, 3] to examine: half evenly spread, half by strokes in the bands."""
    if len(pictures) <= count:
        return list(range(len(pictures)))
    band = max(1, round(_BAND * pictures.shape[1]))
    green = pictures[..., 1].astype(np.int16)
    strokes = np.abs(green[:, :, 2:] - green[:, :, :-2]) >= _STROKE
    share = np.maximum(strokes[:, :band].mean((1, 2)), strokes[:, -band:].mean((1, 2)))
    chosen = {round(index) for index in np.linspace(0, len(pictures) - 1, (count + 1) // 2 + 2)[1:-1]}
    for index in np.argsort(-share, kind="stable"):
        if len(chosen) < count:
            chosen.add(int(index))
    return sorted(chosen)


def subtitle_lines(found: Sequence[TextBoxes], size: tuple[int, int]) -> np.ndarray:
    """Return the boxes [N, 4] of all frames that are lines of subtitles, in pictures of (height, width)."""
    lines: list[np.ndarray] = []
    for index, one in enumerate(found):
        others = [other.boxes for other in found[:index] + found[index + 1 :]]  # type: ignore[operator]
        again = np.concatenate([np.zeros((0, 4)), *others])
        wide, high = (one.boxes[:, 2:] - one.boxes[:, :2]).T
        in_band = (one.boxes[:, 1] >= (1 - _BAND) * size[0]) | (one.boxes[:, 3] <= _BAND * size[0])
        off_centre = np.abs(one.boxes[:, 0] + wide / 2 - size[1] / 2)
        is_line = (wide >= _LINE * high) | (off_centre <= _CENTRED * size[1])
        is_line |= (overlaps(one.boxes, again) >= _SAME).any(1)
        lines.append(one.boxes[in_band & is_line & one.is_level])
    return np.concatenate([np.zeros((0, 4)), *lines])


def lasting(frames: Sequence[np.ndarray]) -> np.ndarray:
    """Return the corners [N, 4, 2] of the first of several frames that all frames have at the same place."""
    first = frames[0]
    if len(frames) < 2:
        return first[:0]
    found = [(overlaps(boxes_of(first), boxes_of(other)) >= _SAME).any(1) for other in frames[1:]]
    return first[np.all(found, axis=0)]


def scaled_crop(box: Box, size: tuple[int, int], full: tuple[int, int]) -> Box:
    """Return a box of a picture of (height, width) in the pixels of the full one: within it, with even sides."""
    scales = np.asarray([full[1] / size[1], full[0] / size[0]])
    low = np.ceil(np.asarray(box[:2]) * scales - 1e-6).astype(int)
    high = np.floor(np.asarray(box[2:]) * scales + 1e-6).astype(int)
    high -= (high - low) % 2
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def _with_margin(lines: np.ndarray) -> np.ndarray:
    grown = 1 + _MARGIN * (lines[:, 3:] - lines[:, 1:2])
    return lines + np.concatenate([-grown, -grown, grown, grown], axis=1)


def _inside(corners: np.ndarray, window: Box) -> np.ndarray:
    """Corners in the pixels of a window, without the pieces whose middle is outside of it."""
    middle = corners.mean(1)
    is_in = ((middle >= window[:2]) & (middle < window[2:])).all(1)
    return corners[is_in] - np.asarray(window[:2])
