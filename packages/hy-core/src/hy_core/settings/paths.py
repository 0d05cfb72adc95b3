"""Paths in settings: relative ones in a file mean the file's own folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hy_core.errors import UsageError
from hy_core.options import path_problem
from hy_core.tables import shown


def beside(base: Path, value: str | None, label: str, must_exist: bool = False) -> str | None:
    """A path of a file's setting, relative to the file's own folder `base`; UsageError, begun by `label`, for none.

    With `must_exist` a value that names nothing there stays as it is: the name of a model.
    """
    if not value:
        return value
    if problem := path_problem(value):
        raise UsageError(f"{label}: {shown(value)} {problem}")
    if value.startswith("~") or Path(value).is_absolute():
        return str(Path(value).expanduser())
    path = base / value
    if must_exist and not exists(path):
        return value
    return f"{path}{'/' if value.endswith('/') else ''}"


def exists(path: Path) -> bool:
    """Whether there is a file or a folder; False for names that no file system takes."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def rebased(value: Any, base: Path) -> Any:
    """Relative paths among a plugin's values, seen from `base`."""
    if isinstance(value, Path):
        return base / value.expanduser()
    if isinstance(value, list | tuple):
        return type(value)(rebased(one, base) for one in value)
    return value
