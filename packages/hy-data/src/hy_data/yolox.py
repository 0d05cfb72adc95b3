"""Object detection with YOLOX (arXiv 2107.08430) from a given ONNX file, as its repository exports it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from hy_core.errors import UsageError

from hy_data import onnx_models
from hy_data.boxes import strongest
from hy_data.onnx_models import open_session

COCO = tuple(
    "person;bicycle;car;motorcycle;airplane;bus;train;truck;boat;traffic light;fire hydrant;stop sign;parking meter;"
    "bench;bird;cat;dog;horse;sheep;cow;elephant;bear;zebra;giraffe;backpack;umbrella;handbag;tie;suitcase;frisbee;"
    "skis;snowboard;sports ball;kite;baseball bat;baseball glove;skateboard;surfboard;tennis racket;bottle;"
    "wine glass;cup;fork;knife;spoon;bowl;banana;apple;sandwich;orange;broccoli;carrot;hot dog;pizza;donut;cake;"
    "chair;couch;potted plant;bed;dining table;toilet;tv;laptop;mouse;remote;keyboard;cell phone;microwave;oven;"
    "toaster;sink;refrigerator;book;clock;vase;scissors;teddy bear;hair drier;toothbrush".split(";")
)
"""The 80 classes of COCO in the order of its detectors."""

_STRIDES = (8, 16, 32)
_SIDE = 640  # of the input, where the file leaves it open
_GREY = 114  # of the margin


@dataclass(frozen=True)
class Detections:
    """Objects of a picture, best first: boxes [N, 4] in pixels, scores [N], classes [N] as indices of the names."""

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray


class Yolox:
    """A detector. Its input is float32 [1, 3, S, S]: BGR in 0..255, the picture in the upper left, the rest grey.

    Its output is [1, places, 5 + classes]: for each place of the grids of strides 8, 16 and 32, row by row, the offset
    of a box's centre in strides, the logarithm of its width and height in strides, the probability of an object, and
    those of the classes. `UsageError` for a file with another output or another number of classes than `names`.
    """

    def __init__(self, path: Path, names: tuple[str, ...] = COCO) -> None:
        self._session = open_session(path)
        self.names = names
        shape = self._session.get_inputs()[0].shape
        sides = [one if isinstance(one, int) else _SIDE for one in shape[2:]]
        if len(shape) != 4 or any(side <= 0 or side % _STRIDES[-1] for side in sides):
            raise UsageError(f"{path} takes inputs of {shape}", "a YOLOX export takes [1, 3, 640, 640]")
        self._size = (sides[0], sides[1])
        self._grid, self._strides = _grid(self._size)
        rows = self._run(np.zeros((*self._size, 3), np.uint8))
        if rows.shape != (len(self._grid), 5 + len(names)):
            raise UsageError(
                f"{path} gives {list(rows.shape)} for {len(names)} classes, not {[len(self._grid), 5 + len(names)]}",
                "export YOLOX without decoding in the graph, and give its class names",
            )

    def find(self, picture: np.ndarray, score: float, overlap: float = 0.45) -> Detections:
        """Find objects of at least `score` in uint8 [H, W, 3], RGB; of a class none overlap by more than `overlap`."""
        height, width = picture.shape[:2]
        scale = min(self._size[0] / height, self._size[1] / width)
        small = cv2.resize(
            picture,
            (max(1, round(width * scale)), max(1, round(height * scale))),
            interpolation=cv2.INTER_LINEAR,
        )
        square = np.full((*self._size, 3), _GREY, np.uint8)
        square[: small.shape[0], : small.shape[1]] = small
        rows = self._run(square)
        chances = rows[:, 4:5] * rows[:, 5:]
        classes = chances.argmax(1)
        scores = chances.max(1)
        likely = scores >= score
        rows, scores, classes = rows[likely], scores[likely], classes[likely]
        middle = (rows[:, :2] + self._grid[likely]) * self._strides[likely]
        size = np.exp(np.minimum(rows[:, 2:4], 10)) * self._strides[likely]
        boxes = np.concatenate([middle - size / 2, middle + size / 2], axis=1) / scale
        boxes = np.clip(boxes, 0, [width, height] * 2)
        kept = strongest(boxes, scores, overlap, classes)
        return Detections(boxes[kept], scores[kept], classes[kept])

    def _run(self, square: np.ndarray) -> np.ndarray:
        planes = square[..., ::-1].transpose(2, 0, 1)[None].astype(np.float32)
        output = np.asarray(onnx_models.run(self._session, planes)[0], np.float64)
        return output.reshape(output.shape[-2:]) if output.ndim >= 2 else output


def _grid(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Column and row [places, 2] and stride [places, 1] of every place."""
    places, strides = [], []
    for stride in _STRIDES:
        rows, columns = np.mgrid[: size[0] // stride, : size[1] // stride]
        places.append(np.stack([columns.ravel(), rows.ravel()], 1))
        strides.append(np.full((rows.size, 1), stride))
    return np.concatenate(places).astype(np.float64), np.concatenate(strides).astype(np.float64)
