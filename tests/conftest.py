"""Settings of the whole suite."""

from __future__ import annotations

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the cores: torch's own threads would only compete. Set before anything imports torch; programs that
    # tests start inherit it.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
