"""Text in pictures, by RapidOCR and the models of its wheel (PP-OCRv6 small)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hy_core.errors import MissingError

from hy_data.boxes import boxes_of
from hy_data.onnx_models import HINT

_LEVEL = np.tan(np.radians(6))  # how far the upper edge of a level line of text rises


@dataclass(frozen=True)
class TextBoxes:
    """Text of a picture: corners float [N, 4, 2] in pixels, clockwise from the upper left, and texts if read."""

    corners: np.ndarray
    texts: tuple[str, ...] = ()

    @property
    def boxes(self) -> np.ndarray:
        """The upright boxes [N, 4] around them."""
        return boxes_of(self.corners)

    @property
    def is_level(self) -> np.ndarray:
        """Whether a line is level, bool [N]."""
        edge = self.corners[:, 1] - self.corners[:, 0]
        level: np.ndarray = np.abs(edge[:, 1]) <= _LEVEL * np.abs(edge[:, 0])
        return level


class TextReader:
    """A text detector and reader for pictures whose shorter side is about `side` pixels; `MissingError` without it."""

    def __init__(self, side: int) -> None:
        try:
            from rapidocr import RapidOCR
        except ImportError:
            raise MissingError("rapidocr is needed to find text, but it is not installed", HINT) from None
        engine = "EngineConfig.onnxruntime"
        self._engine: Any = RapidOCR(
            params={
                f"{engine}.intra_op_num_threads": 1,
                f"{engine}.inter_op_num_threads": 1,
                "Global.log_level": "error",
                "Det.limit_side_len": side,
            }
        )

    def find(self, picture: np.ndarray, score: float, *, read: bool = False) -> TextBoxes:
        """Find text of at least `score` in a picture, uint8 [H, W, 3], RGB."""
        # Flags of a call stay set for later calls, so each call gives all of them.
        found = self._engine(
            np.ascontiguousarray(picture[..., ::-1]),
            use_det=True,
            use_cls=False,
            use_rec=read,
            return_word_box=False,
            return_single_char_box=False,
            text_score=score,
            box_thresh=score if not read else 0.5,
            unclip_ratio=1.6,
        )
        if found.boxes is None or not len(found.boxes):
            return TextBoxes(np.zeros((0, 4, 2)))
        return TextBoxes(np.asarray(found.boxes, np.float64), tuple(found.txts) if read else ())
