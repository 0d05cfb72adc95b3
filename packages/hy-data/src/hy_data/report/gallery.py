"""Which clips a report shows, and their pictures."""

from __future__ import annotations

import base64
import hashlib
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from hy_core.data import ClipRecord
from hy_core.errors import HyError
from hy_core.files import write_bytes
from hy_core.media.names import PICTURES
from hy_core.media.pictures import read_picture
from hy_core.media.timeline import frames_at
from PIL import Image

from hy_data.select.rules import reason_text
from hy_data.table import read_path

log = logging.getLogger(__name__)

SIDE = 192
"""The longer side of a picture, in pixels."""
_FACTS = ["id", "path", "start", "stop", "crop", "captions"]


def dropped(manifest: pa.Table, name: str, step: Mapping[str, Any], most: int) -> list[dict[str, Any]]:
    """Return up to `most` clips that a step of a set's funnel is the first to drop: facts and `reasons`, as text.

    Of clips with a value they are spread from those next to the threshold to the worst.
    """
    reasons = manifest[f"reasons_{name}"]
    rows = manifest.filter(pc.greater(pc.list_value_length(reasons), 0))
    if not len(rows):
        return []
    first = pc.list_element(rows[f"reasons_{name}"].combine_chunks(), 0)
    mine = pc.and_(
        pc.equal(pc.struct_field(first, "score"), step["score"]),
        pc.equal(pc.struct_field(first, "sense"), step["sense"]),
    )
    rows, first = rows.filter(mine), first.filter(mine)
    if not len(rows):
        return []
    order = "ascending" if step["sense"] == "max" else "descending"
    by_value = pc.sort_indices(
        pa.table({"value": pc.struct_field(first, "value"), "id": rows["id"]}),
        sort_keys=[("value", order), ("id", "ascending")],
    )
    count = min(most, len(rows))
    places = [round(at * (len(rows) - 1) / max(count - 1, 1)) for at in range(count)]
    return _clips(rows.take(by_value.take(pa.array(places))), name)


def kept(manifest: pa.Table, name: str, most: int) -> list[dict[str, Any]]:
    """Return the first `most` clips of a set; their ids are hashes, so they are a random choice."""
    return _clips(manifest.filter(manifest[f"kept_{name}"]).slice(0, most), name)


def _clips(rows: pa.Table, name: str) -> list[dict[str, Any]]:
    names = [*(one for one in _FACTS if one in rows.column_names), f"reasons_{name}"]
    found = rows.select(names).to_pylist()
    for row in found:
        row["reasons"] = [reason_text(one) for one in row.pop(f"reasons_{name}")]
    return found


def picture(row: Mapping[str, Any], folder: Path) -> str | None:
    """Return the middle frame of a clip as the data URI of a JPEG, None if its file can't be read.

    It is kept in `folder`/cache/report, under a name made of the clip's id alone.
    """
    store = folder / "cache" / "report" / f"{hashlib.sha256(str(row['id']).encode()).hexdigest()[:32]}.jpg"
    if not store.is_file():
        try:
            write_bytes(store, _jpeg(row, folder))
        except HyError as error:
            log.info("no picture of %s: %s", row["id"], error.message)
            return None
    return "data:image/jpeg;base64," + base64.b64encode(store.read_bytes()).decode()


def _jpeg(row: Mapping[str, Any], folder: Path) -> bytes:
    file = ClipRecord(read_path(row["path"]), home=folder).file
    if file.suffix.lower() in PICTURES:
        image = read_picture(file)
        if row.get("crop"):
            image = image.crop(tuple(row["crop"]))
    else:
        start, stop = row.get("start") or 0.0, row.get("stop")
        middle = start if stop is None else (start + stop) / 2
        span = (middle, max(stop or middle + 1, middle + 0.001))
        crop: Sequence[int] | None = row.get("crop")
        frame = next(iter(frames_at(file, span=span, count=1, crop=None if crop is None else tuple(crop))))  # type: ignore[arg-type]
        image = Image.fromarray(frame)
    image.thumbnail((SIDE, SIDE))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=80)
    return out.getvalue()
