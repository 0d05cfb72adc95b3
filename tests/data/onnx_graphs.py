"""Small ONNX models with known answers, for stages that take weights from a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest


def save(
    path: Path,
    nodes: Sequence[tuple[str, Sequence[str], Sequence[str], Mapping[str, Any]]],
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Mapping[str, Sequence[int | str]],
    constants: Mapping[str, np.ndarray],
) -> Path:
    """Write a graph of (operator, inputs, outputs, attributes); all in float32 but what `constants` have."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node(name, given, made, **more) for name, given, made, more in nodes],
        "graph",
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in outputs.items()],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def yolox(path: Path, side: int = 64, classes: int = 80) -> Path:
    """A YOLOX-shaped detector: a place of stride 8 that is all white is a box of 16x16 around its middle, of class 0.

    It is certain of blue (by how much of BGR is blue alone): class 1. Places of strides 16 and 32 find nothing.
    """
    # Rows are made per place by a 1x1 convolution of the mean colour: [B, G, R] / 255 -> 5 + classes values.
    weight, bias = np.zeros((5 + classes, 3, 1, 1), np.float32), np.zeros(5 + classes, np.float32)
    bias[0:2], bias[2:4] = 0.5, np.log(2)
    weight[4, 0] = 1 / 255  # certainty: blue is full in white and in blue
    weight[5, 2] = 1 / 255  # class 0: red is full in white alone
    weight[6, 0], weight[6, 2] = 1 / 255, -1 / 255
    others = sum((side // stride) ** 2 for stride in (16, 32))
    return save(
        path,
        [
            ("AveragePool", ["images"], ["means"], {"kernel_shape": [8, 8], "strides": [8, 8]}),
            ("Conv", ["means", "weight", "bias"], ["places"], {}),
            ("Reshape", ["places", "flat"], ["columns"], {}),
            ("Transpose", ["columns"], ["rows"], {"perm": [0, 2, 1]}),
            ("Concat", ["rows", "nothing"], ["output"], {"axis": 1}),
        ],
        {"images": [1, 3, side, side]},
        {"output": [1, (side // 8) ** 2 + others, 5 + classes]},
        {
            "weight": weight,
            "bias": bias,
            "flat": np.array([1, 5 + classes, -1], np.int64),
            "nothing": np.zeros((1, others, 5 + classes), np.float32),
        },
    )


def dover(path: Path) -> Path:
    """A DOVER-shaped network: each score is the mean of its view, the second one per clip."""
    return save(
        path,
        [
            ("ReduceMean", ["aes_view"], ["aesthetic"], {"axes": [1, 2, 3, 4], "keepdims": 0}),
            ("ReduceMean", ["tech_view"], ["technical"], {"axes": [1, 2, 3, 4], "keepdims": 0}),
        ],
        {"aes_view": [1, 3, 32, 224, 224], "tech_view": [3, 3, 32, 224, 224]},
        {"aesthetic": [1], "technical": [3]},
        {},
    )


def raft(path: Path, size: Sequence[int | str] = ("height", "width")) -> Path:
    """A flow network: x is the difference of both pictures' red, y the first one's green; a coarse flow comes first."""
    return save(
        path,
        [
            ("Sub", ["second", "first"], ["difference"], {}),
            ("Slice", ["difference", "0", "1", "axis"], ["x"], {}),
            ("Slice", ["first", "1", "2", "axis"], ["y"], {}),
            ("Concat", ["x", "y"], ["flow"], {"axis": 1}),
            ("AveragePool", ["flow"], ["coarse"], {"kernel_shape": [8, 8], "strides": [8, 8]}),
        ],
        {"first": [1, 3, *size], "second": [1, 3, *size]},
        {"coarse": [1, 2, "h", "w"], "flow": [1, 2, *size]},
        {**{str(at): np.array([at], np.int64) for at in (0, 1, 2)}, "axis": np.array([1], np.int64)},
    )
