"""Calls into plugins: what fails inside one, or returns the wrong thing, is one line that names it and the place."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from types import NoneType, TracebackType
from typing import Any, TypeVar

from hy_core.errors import HyError, PluginError, is_out_of_memory
from hy_core.trace import trace

F = TypeVar("F", bound=Callable[..., Any])
HINT = "an error in the plugin; HY_DEBUG=1 shows the traceback"


def reason(error: BaseException) -> str:
    """An error as one line: its type and text, or the text alone of an import that failed."""
    text = " ".join(str(error).split())[:400]
    if text and isinstance(error, ImportError):
        return text
    return f"{type(error).__name__}: {text}".rstrip(": ")


def place(error: BaseException, function: Any = None, file: str | None = None) -> str:
    """`file:line` of the innermost frame of `error` in a plugin's own code, or of its `function`'s definition.

    The plugin's code is `file` (that of `function` if None), and its folder where that is a package. Without any frame
    there, and without a function, the innermost frame of all.
    """
    code = getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None
    file = file or (code.co_filename if code else None)
    own = _own(file) if file else lambda name: True
    found = None
    step: TracebackType | None = error.__traceback__
    while step is not None:
        if own(step.tb_frame.f_code.co_filename):
            found = step.tb_frame.f_code.co_filename, step.tb_lineno
        step = step.tb_next
    if found is None and code is not None:
        found = code.co_filename, code.co_firstlineno
    return f"{Path(found[0]).name}:{found[1]}" if found else ""


def _own(file: str) -> Callable[[str], bool]:
    folder = os.path.dirname(file)
    if os.path.isfile(os.path.join(folder, "__init__.py")):
        return lambda name: name.startswith(folder + os.sep)
    return lambda name: name == file


def failure(
    owner: str, call: str, error: BaseException, function: Any = None, file: str | None = None
) -> str:
    """`plugin 'dawn', finish (dawn.py:12): ZeroDivisionError: division by zero`."""
    where = place(error, function, file)
    return f"plugin {owner!r}, {call}{f' ({where})' if where else ''}: {reason(error)}"


@contextmanager
def blame(
    owner: str, call: str, function: Any = None, passes: tuple[type[BaseException], ...] = ()
) -> Iterator[None]:
    """Turn whatever a plugin's code raises in the block into a PluginError.

    A HyError, a lack of memory and errors of the types `passes` are raised as they are.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        if isinstance(error, (HyError, *passes)) or is_out_of_memory(error):
            raise
        raise PluginError(failure(owner, call, error, function), HINT) from error


def guarded(owner: str, call: str, function: F) -> F:
    """A plugin's function whose errors name the plugin and `call`."""

    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with trace(owner, call), blame(owner, call, function):
            return function(*args, **kwargs)

    return wrapper  # type: ignore[return-value]


def guarded_method(call: str, function: F) -> F:
    """A method of a Conditioner, traced, whose errors name the plugin, with its result checked by `RESULTS`."""
    check = RESULTS.get(call)

    @wraps(function)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        with trace(self.name, call), blame(self.name, call, function):
            found = function(self, *args, **kwargs)
            if call == "branches":  # a generator's body must run in here
                found = tuple(found)
        if check is not None and (problem := check(found, args)):
            code = inspect.unwrap(function).__code__
            where = f"{Path(code.co_filename).name}:{code.co_firstlineno}"
            raise PluginError(
                f"plugin {self.name!r}, {call} ({where}): {problem}", "see docs/plugins/hooks.md"
            )
        return found

    return wrapper  # type: ignore[return-value]


# What a method returned, and the positional arguments it got, to a problem in words, or "".


def nothing(found: Any, args: tuple[Any, ...]) -> str:
    """Methods that fill or change their arguments return None."""
    return (
        ""
        if found is None
        else f"returned {_kind(found)}, which nothing reads; change the arguments in place"
    )


def same_latents(found: Any, args: tuple[Any, ...]) -> str:
    """`before_step` returns a tensor like the latents that it gets."""
    latents = args[0] if args else None
    wanted = getattr(latents, "shape", None)
    if wanted is None:
        return ""
    shape, dtype = getattr(found, "shape", None), getattr(found, "dtype", None)
    if shape == wanted and dtype == getattr(latents, "dtype", None):
        return ""
    given = _kind(found) if shape is None else f"{list(shape)} of {dtype}"
    return f"returned {given} instead of latents {list(wanted)} of {getattr(latents, 'dtype', None)}"


def whole_result(found: Any, args: tuple[Any, ...]) -> str:
    """`finish` changes the result in place and leaves frames as uint8 [F, H, W, 3]."""
    if problem := nothing(found, args):
        return f"{problem}: result.frames = ..."
    frames = getattr(args[1], "frames", None) if len(args) > 1 else None
    if frames is None:
        return ""
    shape, dtype = tuple(getattr(frames, "shape", ())), str(getattr(frames, "dtype", _kind(frames)))
    if dtype.removeprefix("torch.") == "uint8" and len(shape) == 4 and shape[-1] == 3 and 0 not in shape:
        return ""
    return f"left result.frames as {dtype} {list(shape)}; they must be a uint8 array [F, H, W, 3]"


def _instance(words: str, *kinds: type) -> Callable[[Any, tuple[Any, ...]], str]:
    return lambda found, args: (
        "" if isinstance(found, kinds) else f"returned {_kind(found)} instead of {words}"
    )


def segments_or_none(found: Any, args: tuple[Any, ...]) -> str:
    """`segments` returns `hy_core.conditioner.Segments` or None."""
    if found is None or (hasattr(found, "count") and hasattr(found, "overlap")):
        return ""
    return f"returned {_kind(found)} instead of Segments or None"


def tensor_or_none(found: Any, args: tuple[Any, ...]) -> str:
    """`training_condition` returns loss weights, a tensor, or None."""
    if found is None or (hasattr(found, "ndim") and hasattr(found, "device")):
        return ""
    return f"returned {_kind(found)} instead of a tensor of loss weights or None"


def _kind(found: Any) -> str:
    return "None" if found is None else f"a {type(found).__name__}"


RESULTS: dict[str, Callable[[Any, tuple[Any, ...]], str]] = {
    "defaults": _instance("a mapping", Mapping),
    "validate": nothing,
    "segments": segments_or_none,
    "attach": nothing,
    "encode": nothing,
    "plan_sampling": nothing,
    "attach_for_training": _instance("a mapping of metadata", Mapping),
    "training_condition": tensor_or_none,
    "before_step": same_latents,
    "finish": whole_result,
    "weights": _instance("a path or None", str, Path, NoneType),
    "owns_key": _instance("true or false", bool),
    "attach_from_checkpoint": nothing,
    "parallel_plan": _instance("a mapping", Mapping),
}
"""The checks of what the methods of a Conditioner return."""
