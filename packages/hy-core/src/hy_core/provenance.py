"""The record of how a clip was made: written into its file and read back.

A record that is read is untrusted: its size and types are checked. `hy_core.shell` makes a command of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hy_core import options, shell
from hy_core.errors import HyError
from hy_core.request import Request

FORMAT = 1
MOST_BYTES = 256 << 10


def record(
    request: Request,
    weights: Mapping[str, str] | None = None,
    device: str | None = None,
    dtype: str | None = None,
    packages: Iterable[str] = (),
    plugins: Iterable[Mapping[str, str]] = (),
) -> dict[str, Any]:
    """Return the record of a run: the request, versions, hashes of the weights and plugins, and where it ran.

    `packages` are distributions whose versions are recorded too; `plugins` have `name`, `path` and `sha256` each (see
    `Plugins.records`). It holds no time and no path of the output, so that the same run writes the same file again.
    """
    versions = {name: installed(name) for name in ("hy-core", *packages, "torch", "transformers", "av")}
    made: dict[str, Any] = {
        "hy": FORMAT,
        "request": summary(request),
        "versions": {name: found for name, found in versions.items() if found},
        "weights": dict(weights or {}),
        "ran_on": {"device": device or request.device, "dtype": dtype or request.dtype},
    }
    if recorded := [dict(one) for one in plugins]:
        made["plugins"] = recorded
    if spelled := shell.spellings(request.options):
        made["spellings"] = spelled
    return made


def summary(request: Request) -> dict[str, Any]:
    """Return a request as plain JSON values."""
    values = {name: getattr(request, name) for name in Request.__dataclass_fields__ if name != "options"}
    if request.rewrite is None:
        del values["rewrite"]
    else:
        values["rewrite"] = dict(request.rewrite)
    values["plugins"] = list(request.plugins)
    values["options"] = {name: options.plain(chosen) for name, chosen in request.options.items()}
    return values


def installed(name: str) -> str | None:
    """Return the version of an installed distribution, None if there is none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def dumps(made_by: Mapping[str, Any], pictures: int = 1) -> str:
    """Return a record as the text of a comment tag; it says of how many pictures it is the first, if of several."""
    more = {"pictures": pictures} if pictures > 1 else {}
    return json.dumps({**made_by, **more}, ensure_ascii=False, separators=(",", ":"))


def read(path: Path | str) -> dict[str, Any]:
    """Read the record in a file; `HyError` if it has none or a broken one."""
    from hy_core import media

    comment = media.read_comment(path)
    if not comment:
        raise HyError(
            f"{path} doesn't say how it was made", "only files that hy wrote (without --no-provenance) do"
        )
    return parse(comment, str(path))


def parse(text: str, origin: str) -> dict[str, Any]:
    """Parse a comment as a record; `HyError`, naming `origin`, for anything else."""
    other = HyError(f"{origin} has a comment that hy did not write")
    if len(text) > MOST_BYTES or not text.lstrip().startswith("{"):
        raise other
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise other from None
    if not isinstance(found, dict) or not isinstance(found.get("hy"), int):
        raise other
    if found["hy"] > FORMAT:
        raise HyError(f"{origin} was written by a newer hy (format {found['hy']})", "upgrade hy-core")
    request = found.get("request")
    if not isinstance(request, dict) or not isinstance(request.get("prompt"), str):
        raise HyError(f"{origin}: its record has no request")
    return found
