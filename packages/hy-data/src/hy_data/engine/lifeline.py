"""The first thing that a worker process does. It imports nothing large, so that a killed driver leaves no process."""

from __future__ import annotations

import os
import signal


def die_with_parent(parent: int) -> None:
    """Let the system kill this process when its parent ends, also if it hangs then."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, Linux
    except (OSError, AttributeError, TypeError):
        pass
    if os.getppid() != parent:
        os._exit(1)


def serve(parent: int, descriptor: int) -> None:
    """Serve a driver over a socket, see `hy_data.engine.worker`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the driver, which ends its workers
    die_with_parent(parent)
    from hy_data.engine.worker import main

    main(descriptor)
