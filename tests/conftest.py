"""Settings of the whole suite."""

from __future__ import annotations

import os
import shutil
import tempfile

import pytest

_NUMBA_CACHE = ""

if "PYTEST_XDIST_WORKER" in os.environ:
    # Set before anything imports torch or numba; programs that tests start inherit both. Workers share the cores, so
    # torch's own threads would only compete. Two processes that fill numba's cache at once damage it, and librosa
    # then crashes in every later process of the environment, so each worker has a cache of its own.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    _NUMBA_CACHE = os.environ["NUMBA_CACHE_DIR"] = tempfile.mkdtemp(prefix="hy-numba-")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Remove the worker's cache."""
    if _NUMBA_CACHE:
        shutil.rmtree(_NUMBA_CACHE, ignore_errors=True)
