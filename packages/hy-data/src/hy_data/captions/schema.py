"""The schema of a structured caption (HunyuanVideo, arXiv 2412.03603, section 3.2) and its text."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from typing import Any

from hy_core.errors import HyError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

LIMITS: Mapping[str, int] = {
    "short_description": 300,
    "dense_description": 3000,
    "background": 600,
    "style": 200,
    "shot_type": 200,
    "lighting": 300,
    "atmosphere": 200,
    "camera_motion": 100,
}
"""Fields in the paper's order, with the most characters of each."""
FIELDS = tuple(LIMITS)
MOST_TAGS = 16
_TAG_CHARACTERS = 120
_LABELS = {
    "background": "Background",
    "style": "Style",
    "shot_type": "Shot type",
    "lighting": "Lighting",
    "atmosphere": "Atmosphere",
    "camera_motion": "Camera",
}


class CaptionError(HyError):
    """A text that is no structured caption and can't be repaired; the message says what is wrong with it."""


class StructuredCaption(BaseModel):
    """What a clip shows, by aspect; "" for what isn't known.

    `camera_motion` is one of the paper's 14 classes, and only there when it is known with confidence. `tags` are facts
    about the file, such as its source and its quality.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    short_description: str = Field(min_length=1, max_length=LIMITS["short_description"])
    dense_description: str = Field(default="", max_length=LIMITS["dense_description"])
    background: str = Field(default="", max_length=LIMITS["background"])
    style: str = Field(default="", max_length=LIMITS["style"])
    shot_type: str = Field(default="", max_length=LIMITS["shot_type"])
    lighting: str = Field(default="", max_length=LIMITS["lighting"])
    atmosphere: str = Field(default="", max_length=LIMITS["atmosphere"])
    camera_motion: str = Field(default="", max_length=LIMITS["camera_motion"])
    tags: dict[str, str] = Field(default_factory=dict, max_length=MOST_TAGS)

    def to_json(self) -> dict[str, Any]:
        """Return the fields that are filled."""
        return {name: value for name, value in self.model_dump().items() if value}

    @classmethod
    def from_json(cls, value: Any) -> StructuredCaption:
        """Make a caption of what `to_json` returned, or of its JSON text; `CaptionError` for anything else."""
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                raise CaptionError("a structured caption that is not JSON") from None
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise CaptionError(f"not a structured caption: {first_error(error)}") from None

    def text(self) -> str:
        """Return all fields as one text, in the order of the schema."""
        return " ".join(self.sentence(name) for name in FIELDS if getattr(self, name))

    def sentence(self, name: str, label: bool = True) -> str:
        """Return a field as a sentence; of other fields than the descriptions with its label, if wanted."""
        value: str = getattr(self, name)
        end = "" if value[-1:] in ".!?。！？" else "."
        if name in _LABELS and label:
            return f"{_LABELS[name]}: {value}{end}"
        return value[:1].upper() + value[1:] + end


def clean(text: str, most: int) -> str:
    """Return a text in one line without control characters, cut after a sentence or word to at most `most`."""
    plain = "".join(" " if unicodedata.category(one)[0] in "CZ" else one for one in text[: 8 * most])
    plain = " ".join(plain.split())
    if len(plain) <= most:
        return plain
    cut = plain[:most]
    stop = max(cut.rfind(mark) for mark in (". ", "! ", "? ", "。"))
    return cut[: stop + 1] if stop > most // 2 else cut.rsplit(" ", 1)[0]


def clean_tags(tags: Mapping[str, Any]) -> dict[str, str]:
    """Return tags as short texts: at most 16 of them, without empty ones."""
    texts = {clean(str(name), 40): clean(str(value), _TAG_CHARACTERS) for name, value in tags.items()}
    return dict([(name, text) for name, text in texts.items() if name and text][:MOST_TAGS])


def first_error(error: ValidationError) -> str:
    """Return pydantic's first complaint in one line."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}" if where else str(first["msg"])
