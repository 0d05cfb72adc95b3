"""The importer of "module:attribute": names of Python objects in options, recipes and registrations."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from hy_core.errors import HyError, MissingError, UsageError


def is_target(text: object) -> bool:
    """Whether a value has the form "module:attribute", with dots allowed on both sides; nothing is imported."""
    if not isinstance(text, str):
        return False
    parts = text.split(":")
    return len(parts) == 2 and all(word.isidentifier() for part in parts for word in part.split("."))


def import_target(target: str, label: str = "", known: Mapping[str, str] | None = None) -> Any:
    """Import "module:attribute" and return the object.

    `label` begins the error: the option, recipe key or plugin that named the target. `known` maps short names, accepted
    as well, to targets. UsageError if `target` has another
    form or the module lacks the attribute; MissingError if the module isn't installed or fails while it is imported.
    """
    start = f"{label}: " if label else ""
    if known and target in known:
        target = known[target]
    if not is_target(target):
        hint = f"use {', '.join(known)}, or module:attribute" if known else "such as my_package.judges:score"
        raise UsageError(f"{start}{target!r} is not module:attribute", hint)
    module, _, attribute = target.partition(":")
    try:
        found: Any = importlib.import_module(module)
    except HyError:
        raise
    except ModuleNotFoundError as error:
        more = f"install the package that brings the module {error.name!r}" if error.name else None
        raise MissingError(f"{start}can't import {target}: {error}", more) from error
    except (Exception, SystemExit) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise MissingError(
            f"{start}can't import {target}: {reason}", "HY_DEBUG=1 shows the traceback"
        ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise UsageError(f"{start}can't import {target}: module {module!r} has no {attribute!r}")
        found = getattr(found, part)
    return found
