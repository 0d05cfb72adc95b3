"""Session: a loaded model that takes one request after another, or several at once from threads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Self, overload

from hy_core import models
from hy_core.errors import HyError, UsageError
from hy_core.keyed import KeyedCache
from hy_core.pipeline import Callback, Run, Sink
from hy_core.request import Request, Result

if TYPE_CHECKING:
    from hy_core.conditioner import Conditioner
    from hy_core.models import Model
    from hy_core.plugins import Plugins


class Session:
    """A loaded model on its device, its observers, and a cache that plugins keep their encoders in.

    with Session.open("pocket") as session:
        result = session.generate(Request("a red circle moves right"))

    Several threads may call `generate` and `stream` at once: each call has state of its own, and a clip is bit for bit
    what it is alone. Modules of plugins stay attached between requests (see `hy_core.models.attaching`); `cache` is the
    `session_cache` of conditions and results. One set of text encoders is loaded at a time.
    """

    def __init__(self, model: Model, plugins: Plugins | None = None) -> None:
        self.plugins = plugins
        self.cache = KeyedCache()
        self.text_lock = Lock()
        self._model: Model | None = model

    @classmethod
    def open(
        cls,
        model: str = "pocket",
        device: str = "auto",
        dtype: str = "auto",
        weights: str | None = None,
        lora: str | None = None,
        conditioners: Sequence[Conditioner] = (),
        plugins: Plugins | None = None,
    ) -> Session:
        """Load a model (arguments and errors as in `hy_core.models.load`) and open a session for it."""
        return cls(models.load(model, device, dtype, weights, lora, conditioners), plugins)

    @property
    def model(self) -> Model:
        """The loaded model; HyError when the session is closed."""
        if self._model is None:
            raise HyError("the session is closed", "open another one")
        return self._model

    def generate(
        self,
        request: Request,
        conditioners: Sequence[Conditioner] = (),
        callback: Callback | None = None,
    ) -> Result:
        """Make one clip; see `stream`."""
        (result,) = self.stream([request], conditioners, callback)
        return result

    def stream(
        self,
        requests: Sequence[Request],
        conditioners: Sequence[Conditioner] = (),
        callback: Callback | None = None,
        rows: int = 1,
        sink: Sink | None = None,
    ) -> Iterator[Result]:
        """Make clips and yield each when it is done, in the order of the requests.

        `conditioners` apply to all requests and have been validated. `sink` opens the writers that take a clip's
        frames as they are decoded, so that memory is bounded by the tile and not by the clip; `frames` of such a result
        is None. The frames of a clip that a plugin needs whole (for `finish` or `on_run_end`) are kept.

        Up to `rows` requests of one form go through the network together: with 1, a clip is bit for bit the same
        whatever stands beside it; with more, within rounding.

        Raises HyError in one line: for weights or numbers that are NaN, naming the place; MemoryLimitError, with what
        to make smaller. Only a `sink` writes files; its writers are closed with the error, so that an interrupted run
        leaves nothing behind.
        """
        run = Run(requests, conditioners, callback, self.plugins, sink)
        with run.observed():
            yield from run.results(self, rows)

    def close(self) -> None:
        """Let the model and the cached encoders go."""
        self.cache.clear()
        self._model = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


@overload
def generate(
    requests: Request,
    conditioners: Sequence[Conditioner] = ...,
    model: Model | None = ...,
    callback: Callback | None = ...,
    plugins: Plugins | None = ...,
    rows: int = ...,
) -> Result: ...
@overload
def generate(
    requests: Sequence[Request],
    conditioners: Sequence[Conditioner] = ...,
    model: Model | None = ...,
    callback: Callback | None = ...,
    plugins: Plugins | None = ...,
    rows: int = ...,
) -> list[Result]: ...
def generate(
    requests: Request | Sequence[Request],
    conditioners: Sequence[Conditioner] = (),
    model: Model | None = None,
    callback: Callback | None = None,
    plugins: Plugins | None = None,
    rows: int = 1,
) -> Result | list[Result]:
    """Make one clip, or a list of them in the order of the requests; see `stream`."""
    if isinstance(requests, Request):
        (result,) = stream([requests], conditioners, model, callback, plugins, rows)
        return result
    return list(stream(requests, conditioners, model, callback, plugins, rows))


def stream(
    requests: Sequence[Request],
    conditioners: Sequence[Conditioner] = (),
    model: Model | None = None,
    callback: Callback | None = None,
    plugins: Plugins | None = None,
    rows: int = 1,
    sink: Sink | None = None,
) -> Iterator[Result]:
    """Make clips in a session of their own; see `Session.stream`.

    Without `model`, that of the requests is loaded; UsageError if they differ in model, weights, device or dtype.
    """
    run = Run(requests, conditioners, callback, plugins, sink)
    with run.observed():
        if model is None:
            wanted = {(r.model, r.device, r.dtype, r.weights, r.lora) for r in run.requests}
            if len(wanted) > 1:
                raise UsageError(
                    "clips of one run share --model, --weights, --lora, --device and --dtype",
                    "make them in runs of their own",
                )
            run.report("load", detail=run.requests[0].model)
            model = models.load(*wanted.pop(), conditioners)
        with Session(model, plugins) as session:
            yield from run.results(session, rows)
