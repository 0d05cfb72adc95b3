"""Manifests: clip records as JSONL, one JSON object to a line, UTF-8."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from hy_core.data.record import ClipRecord
from hy_core.errors import HyError, MissingError, UsageError
from hy_core.files import write_text

_LONGEST_LINE = 16 << 20  # characters; a record with all of its results is far below


def read_manifest(path: Path | str, *, rejected: bool = False, check_files: bool = True) -> list[ClipRecord]:
    """Return the records of a manifest, in order; rejected ones only if `rejected` is set.

    Errors name the file and the number of the line. `MissingError` for no such manifest and, with `check_files`, for a
    clip's file that is neither beside the manifest nor in the current folder; `UsageError` for a line that is no
    record and for a manifest without a record left; `HyError` for a file that can't be read.
    """
    path = Path(path)
    home = path.absolute().parent
    records, left_out = [], 0
    try:
        with path.open(encoding="utf-8") as lines:
            number = 0
            while line := lines.readline(_LONGEST_LINE + 1):
                number += 1
                if not line.strip():
                    continue
                record = _record(line, home, f"{path}, line {number}")
                if record.rejected and not rejected:
                    left_out += 1
                elif check_files and not record.file.exists():
                    raise MissingError(f"{path}, line {number}: no such file: {record.path}")
                else:
                    records.append(record)
    except FileNotFoundError:
        raise MissingError(f"no such manifest: {path}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not text in UTF-8 ({error.reason})") from None
    except OSError as error:
        raise HyError(f"{path} cannot be read ({error.strerror or error})") from error
    if not records:
        reason = f"all {left_out} are rejected" if left_out else "it is empty"
        raise UsageError(f"{path} has no clips: {reason}")
    return records


def write_manifest(path: Path | str, records: Iterable[ClipRecord]) -> None:
    """Write records as a manifest, atomically; `HyError` if it can't be written."""
    rows = [json.dumps(record.to_json(), ensure_ascii=True) for record in records]
    write_text(Path(path), "".join(f"{row}\n" for row in rows))


def _record(line: str, home: Path, where: str) -> ClipRecord:
    if len(line) > _LONGEST_LINE:
        raise UsageError(f"{where} is longer than {_LONGEST_LINE >> 20} MB", "one JSON object to a line")
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise UsageError(f"{where} is not JSON", "if it is the last line, its writer was stopped") from None
    try:
        return ClipRecord.from_json(value, home)
    except UsageError as error:
        raise UsageError(f"{where}: {error.message}", error.hint) from None
