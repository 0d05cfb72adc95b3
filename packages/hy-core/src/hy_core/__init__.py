"""hy_core: from a prompt to a video.

The names below are the public ones. Those that need torch are imported when they are first used, so that a
plugin module can say `from hy_core import Conditioner, hookimpl, option` and stay light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from hy_core.conditioner import Conditioner
from hy_core.errors import (
    ConflictError,
    HyError,
    MemoryLimitError,
    MissingError,
    PluginError,
    UsageError,
)
from hy_core.hooks import API, Check, hookimpl
from hy_core.options import option

if TYPE_CHECKING:
    from hy_core.condition import Condition
    from hy_core.plugins import Plugins
    from hy_core.request import Request, Result
    from hy_core.session import Session, generate

_LATER = {
    "Condition": "hy_core.condition",
    "Plugins": "hy_core.plugins",
    "Request": "hy_core.request",
    "Result": "hy_core.request",
    "Session": "hy_core.session",
    "generate": "hy_core.session",
}

__all__ = [
    "API",
    "Check",
    "Condition",
    "Conditioner",
    "ConflictError",
    "HyError",
    "MemoryLimitError",
    "MissingError",
    "PluginError",
    "Plugins",
    "Request",
    "Result",
    "UsageError",
    "Session",
    "generate",
    "hookimpl",
    "option",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'hy_core' has no attribute {name!r}")
    return getattr(importlib.import_module(_LATER[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
