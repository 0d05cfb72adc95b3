"""Optical flow by RAFT (arXiv 2003.12039) with given weights, for stages that measure motion."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

import cv2
import numpy as np
from hy_core.errors import MissingError, UsageError

from hy_data import onnx_models
from hy_data.onnx_models import open_session

_UNIT = 8  # the network takes sides that are multiples of this
_SMALL_CHANNELS = 32  # of the first layer of torchvision's raft_small; raft_large has 64
_SMALLEST = 128  # and at least so long: its pyramid halves the stride-8 maps three times


class FlowModel(Protocol):
    """Estimates where pixels go."""

    def flow(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return float32 [H, W, 2] in pixels (x, y) for pictures uint8 [H, W, 3], RGB, or gray [H, W]."""
        ...


def load_raft(path: Path, values: Literal["unit", "byte"] = "unit") -> FlowModel:
    """Load RAFT: an .onnx file, or a .safetensors or .pth file with the weights of torchvision's raft_small or _large.

    `values`: of an ONNX file, see `Raft`. `MissingError` for a file or package that isn't there, `UsageError` for a
    file of another kind.
    """
    if path.suffix.lower() == ".onnx":
        return Raft(path, values)
    return TorchRaft(path)


class Raft:
    """A flow network in an ONNX file, with two inputs float32 [1, 3, H, W], RGB, the earlier picture first.

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


class TorchRaft:
    """torchvision's RAFT, small or large as the weights are, on a GPU if there is one.

    `MissingError` without the file or torchvision, `UsageError` for other weights.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise MissingError(f"no weights at {path}", "a .onnx, .safetensors or .pth file of RAFT")
        try:
            from torchvision.models import optical_flow
        except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
            raise MissingError(
                f"{path.name}: RAFT in {path.suffix} needs torchvision, which doesn't import ({_line(error)})",
                'pip install "hy-data[raft]", or give RAFT as an .onnx file',
            ) from None
        import torch
        from hy_core.weights.files import load_state

        state = load_state(path)
        first = state.get("feature_encoder.convnormrelu.0.weight")
        is_small = first is not None and first.shape[0] == _SMALL_CHANNELS
        model = (optical_flow.raft_small if is_small else optical_flow.raft_large)()
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise UsageError(
                f"{path} has no weights of torchvision's raft_small or raft_large: {_line(error)}"
            ) from None
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = model.to(self._device).eval().requires_grad_(False)

    def flow(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return where each pixel of the first picture goes, float32 [H, W, 2] in pixels (x, y)."""
        import torch

        height, width = first.shape[:2]
        below, right = _padded(height) - height, _padded(width) - width
        planes = []
        for one in (first, second):
            colours = one if one.ndim == 3 else np.repeat(one[..., None], 3, axis=2)
            padded = cv2.copyMakeBorder(colours, 0, below, 0, right, cv2.BORDER_REPLICATE)
            plane = torch.from_numpy(padded).to(self._device).permute(2, 0, 1)[None]
            planes.append(plane.float() / 127.5 - 1)
        with torch.inference_mode():
            found = self._model(*planes)[-1][0].permute(1, 2, 0)
        return np.ascontiguousarray(found[:height, :width].float().cpu().numpy())


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
