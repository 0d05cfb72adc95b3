"""Optical flow by RAFT (arXiv 2003.12039) from a given ONNX file, for stages that measure motion."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from hy_core.errors import UsageError

from hy_data import onnx_models
from hy_data.onnx_models import open_session

_UNIT = 8  # the network takes sides that are multiples of this
_SMALLEST = 128  # and at least so long: its pyramid halves the stride-8 maps three times


class Raft:
    """A flow network with two inputs float32 [1, 3, H, W], RGB, the earlier picture first.

    The last output of [1, 2, H, W] is the flow in pixels of the input, x and y. `values` states the range of the
    inputs: "unit" is -1..1 (torchvision), "byte" is 0..255 (the original and its exports). A file with a fixed size
    gets pictures of that size. `MissingError` without the file or ONNX Runtime, `UsageError` for another kind of file.
    """

    def __init__(self, path: Path, values: Literal["unit", "byte"] = "unit") -> None:
        self._session = open_session(path, inputs=2)
        self._values = values
        self._path = path
        shape = self._session.get_inputs()[0].shape
        if len(shape) != 4:
            raise UsageError(f"{path} takes inputs of {shape}", "a flow network takes two of [1, 3, H, W]")
        self._size = (shape[2], shape[3]) if all(isinstance(one, int) for one in shape[2:]) else None

    def flow(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return where each pixel of the first picture goes, float32 [H, W, 2] in pixels (x, y).

        Pictures are uint8 [H, W, 3], RGB, or gray [H, W], of one size.
        """
        height, width = first.shape[:2]
        size = self._size or (_padded(height), _padded(width))
        planes = [self._planes(one, size) for one in (first, second)]
        outputs = onnx_models.run(self._session, *planes)
        flows = [np.asarray(one) for one in outputs if np.shape(one) == (1, 2, *size)]
        if not flows:
            shapes = ", ".join(str(list(np.shape(one))) for one in outputs)
            raise UsageError(f"{self._path} gives {shapes}, not a flow of {[1, 2, *size]}")
        flow = flows[-1][0].transpose(1, 2, 0).astype(np.float32)
        if self._size is None:
            return np.ascontiguousarray(flow[:height, :width])
        scaled: np.ndarray = cv2.resize(flow, (width, height), interpolation=cv2.INTER_LINEAR)
        return scaled * np.asarray([width / size[1], height / size[0]], np.float32)

    def _planes(self, picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        colours = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
        if self._size is None:
            below, right = size[0] - picture.shape[0], size[1] - picture.shape[1]
            colours = cv2.copyMakeBorder(colours, 0, below, 0, right, cv2.BORDER_REPLICATE)
        else:
            colours = cv2.resize(colours, (size[1], size[0]), interpolation=cv2.INTER_AREA)
        planes = colours.transpose(2, 0, 1)[None].astype(np.float32)
        return planes if self._values == "byte" else planes / 127.5 - 1


def _padded(side: int) -> int:
    return max(_SMALLEST, -(-side // _UNIT) * _UNIT)
