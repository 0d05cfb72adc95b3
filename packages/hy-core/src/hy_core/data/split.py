"""The held-out split: which files no training sees."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from hy_core.data.record import ClipRecord
from hy_core.errors import UsageError

Split: TypeAlias = Literal["train", "heldout"]


def check_split(split: str) -> Split:
    """Return the split of a name; `UsageError` for an unknown one."""
    for one in get_args(Split):
        if one == split:
            return one  # type: ignore[no-any-return]
    raise UsageError(f"split = {split!r} is unknown", "use train or heldout")


def is_heldout(path: Path | str, share: float) -> bool:
    """Whether a file belongs to the held-out split, of which `share` (0 to 1) is the expected part of all files.

    The rule is a hash of the file's name without its folder: all clips of a file are in one split, a file keeps its
    split when others are added or the folder is moved, and a larger share only adds files.
    """
    name = Path(path).name.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(name).digest()[:4]) / 2**32 < share


def select_split(
    records: Iterable[ClipRecord], split: Split, share: float, where: str = "heldout"
) -> list[ClipRecord]:
    """Return the records of a split; with a share of 0 both splits are all records.

    `UsageError`, which begins with `where`, if the split is empty or `share` isn't in [0, 1).
    """
    if not 0 <= share < 1:
        raise UsageError(f"{where}: heldout = {share:g} is out of range", "give a share from 0 to below 1")
    records = list(records)
    if share == 0:
        return records
    chosen = [one for one in records if is_heldout(one.path, share) == (split == "heldout")]
    if not chosen:
        files = len({one.path.name for one in records})
        raise UsageError(
            f"{where}: none of {files} files is in the split {split!r} with heldout = {share:g}",
            "give more files, change the share, or use heldout = 0 to evaluate on the training clips",
        )
    return chosen
