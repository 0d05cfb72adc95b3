"""HY_TRACE=1 prints every hook and lifecycle call with its owner and its milliseconds."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


def tracing() -> bool:
    """Whether HY_TRACE asks for a line per call."""
    return os.environ.get("HY_TRACE", "") not in ("", "0")


@contextmanager
def trace(owner: str, call: str) -> Iterator[None]:
    """Print `trace OWNER CALL MS` on stderr when the block ends, if tracing."""
    if not tracing():
        yield
        return
    start = time.perf_counter()
    end = ""
    try:
        yield
    except BaseException as error:
        end = f"  {type(error).__name__}"
        raise
    finally:
        milliseconds = (time.perf_counter() - start) * 1000
        print(f"trace  {owner}  {call}  {milliseconds:.1f} ms{end}", file=sys.stderr, flush=True)
