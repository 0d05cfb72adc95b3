"""Find a clip of a run by the beginning of its id, or by its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hy_core.errors import MissingError, UsageError


def find_row(folder: Path, name: str, table: str = "scores.parquet") -> dict[str, Any]:
    """Return the row of a clip in a table of a run; `name` is the beginning of its id, or the name of its file.

    `MissingError` if there is none, `UsageError` if several begin so; it names the first.
    """
    import pyarrow.compute as pc

    from hy_data.table import open_scores

    with open_scores(folder / table) as file:
        key = file.read(["id", "path"])
        found = pc.starts_with(key["id"], name.lower())
        if not pc.any(found).as_py():
            path = key["path"]
            found = pc.or_(pc.equal(path, name), pc.ends_with(path, f"/{name}"))
        matches = key.filter(found)
        if not len(matches):
            raise MissingError(
                f"{folder} has no clip {name!r}", "give the beginning of an id, or a file's name"
            )
        if len(matches) > 1:
            some = ", ".join(matches["id"].slice(0, 5).to_pylist())
            raise UsageError(f"{len(matches)} clips are {name!r}: {some}", "give more of the id")
        place = pc.index(found, True).as_py()
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            if place < count:
                row: dict[str, Any] = file.read_row_group(group).slice(place, 1).to_pylist()[0]
                return row
            place -= count
    raise MissingError(f"{folder} has no clip {name!r}")
