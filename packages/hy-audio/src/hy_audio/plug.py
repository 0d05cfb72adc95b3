"""Functions and classes that a user names as "module:attribute"."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

from hy_core.errors import MissingError, UsageError


@cache
def plugged(target: str) -> Any:
    """Import "module:attribute"; errors are one line."""
    module, _, attribute = target.partition(":")
    if not module or not attribute:
        raise UsageError(f"{target!r} is not module:attribute")
    try:
        found = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise MissingError(f"can't import {target}: {error}") from error
    return found
