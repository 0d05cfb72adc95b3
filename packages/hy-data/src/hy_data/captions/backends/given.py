"""Captions that a record has already: beside the file, in its manifest, or ground truth of a rendered clip."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from hy_core.data import ClipRecord

from hy_data.captions.backends.base import Captioner, tags_of
from hy_data.captions.repair import Repaired, read_answer
from hy_data.captions.schema import LIMITS, CaptionError, StructuredCaption, clean, clean_tags

if TYPE_CHECKING:
    import numpy as np


class Given(Captioner):
    """Take the structured caption of the result `caption_fields`, else the record's captions.

    A caption that is a JSON object is read as a structured one. Of plain texts the shortest becomes the short and the
    longest the dense description. `CaptionError` for a record without any.
    """

    def caption(self, record: ClipRecord, frames: np.ndarray, seconds: float) -> Repaired:
        stored = record.results.get("caption_fields")
        if isinstance(stored, str | Mapping) and stored:
            return Repaired(StructuredCaption.from_json(stored))
        texts = [text.strip() for text in record.captions if text.strip()]
        if not texts:
            raise CaptionError(
                "the clip has no caption", "put it into NAME.txt beside the file, or choose another backend"
            )
        for text in texts:
            if text.startswith("{"):
                return read_answer(text)
        short, dense = min(texts, key=len), max(texts, key=len)
        return Repaired(
            StructuredCaption(
                short_description=clean(short, LIMITS["short_description"]),
                dense_description="" if dense == short else clean(dense, LIMITS["dense_description"]),
                tags=clean_tags(tags_of(record, "given")),
            )
        )
