"""From the answer of a language model to a structured caption: find the JSON in it, repair it, validate it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from hy_data.captions.schema import (
    FIELDS,
    LIMITS,
    CaptionError,
    StructuredCaption,
    clean,
    clean_tags,
    first_error,
)

_LONGEST = 1 << 16  # characters of an answer that are read
_DEEPEST = 16
_NOTHING = {"", "none", "null", "n/a", "na", "unknown", "not applicable", "unclear", "not visible", "-"}
_ALIASES = {
    "short": "short_description",
    "summary": "short_description",
    "caption": "short_description",
    "dense": "dense_description",
    "detailed_description": "dense_description",
    "description": "dense_description",
    "long_description": "dense_description",
    "shot": "shot_type",
    "mood": "atmosphere",
    "camera": "camera_motion",
    "camera_movement": "camera_motion",
}


@dataclass(frozen=True)
class Repaired:
    """A caption, and what had to be changed in the answer to get it (nothing, if all is well)."""

    caption: StructuredCaption
    repairs: tuple[str, ...] = ()


def read_answer(answer: str) -> Repaired:
    """Return the structured caption in a model's answer.

    Repaired are: text and code fences around the object, trailing and missing commas at line ends, single quotes,
    Python's constants, an object that breaks off, keys in other spellings, unknown keys (left out), lists and numbers
    in place of texts, texts that are too long (cut), a missing short description (the first sentence of the dense one).
    `CaptionError` for an answer without an object or without any description.
    """
    repairs: list[str] = []
    value = _object(answer[:_LONGEST], repairs)
    fields, tags = _fields(value, repairs)
    if not fields.get("short_description"):
        dense = fields.get("dense_description", "")
        if not dense:
            raise CaptionError("the answer has neither short_description nor dense_description")
        repairs.append("short_description made of the dense one")
        first = re.split(r"(?<=[.!?。！？])\s*", dense, maxsplit=1)[0]
        fields["short_description"] = clean(first, LIMITS["short_description"])
    try:
        return Repaired(StructuredCaption(**fields, tags=tags), tuple(repairs))
    except ValidationError as error:
        raise CaptionError(f"the answer is no structured caption: {first_error(error)}") from None


def _object(answer: str, repairs: list[str]) -> Mapping[str, Any]:
    start = answer.find("{")
    if start < 0:
        raise CaptionError(f"the answer holds no JSON object: {clean(answer, 60)!r}")
    body = answer[start:]
    try:
        value, end = json.JSONDecoder(strict=False).raw_decode(body)
        if answer[:start].strip() or body[end:].strip():
            repairs.append("text around the object")
    except (ValueError, RecursionError):
        repairs.append("broken JSON")
        value = _mended(body)
    if not isinstance(value, dict):
        raise CaptionError("the answer's JSON is not an object")
    if len(value) == 1:  # {"caption": {...}}
        (inner,) = value.values()
        if isinstance(inner, dict):
            repairs.append("an object within an object")
            return inner
    return value


def _mended(body: str) -> Any:
    """Parse JSON with the faults that language models make; `CaptionError` if it still can't be read."""
    text = _closed(_quoted(body))
    try:
        return json.JSONDecoder(strict=False).raw_decode(text)[0]
    except (ValueError, RecursionError) as error:
        where = f" ({error})" if isinstance(error, ValueError) else ""
        raise CaptionError(f"the answer's JSON can't be repaired{where}") from None


_TOKEN = re.compile(
    r'"(?:[^"\\]|\\.)*"|“(?:[^”\\]|\\.)*”|\'(?:[^\'\\]|\\.|\'(?=\w))*\'|[^"\'“]+|["\'“]', re.DOTALL
)


def _quoted(text: str) -> str:
    """Replace single and curly quotes around strings and mend commas and constants outside of strings."""
    parts: list[str] = []
    for token in _TOKEN.findall(text):
        if len(token) > 1 and token[0] in "'“":
            parts.append(json.dumps(token[1:-1].replace("\\'", "'"), ensure_ascii=False))
        elif token[0] == '"':
            parts.append(token)
        else:
            token = re.sub(r"//[^\n]*", "", token)
            for python, own in (("None", "null"), ("True", "true"), ("False", "false"), ("NaN", "null")):
                token = re.sub(rf"\b{python}\b", own, token)
            parts.append(token)
    joined = ""
    for part in parts:
        before = joined.rstrip()
        if part[:1] == '"' and before[-1:] == '"' and "\n" in joined[len(before) :]:
            joined = before + ","  # a comma that is missing at a line's end
        elif part.lstrip()[:1] in ("}", "]") and before[-1:] == ",":
            joined = before[:-1]
        joined += re.sub(r",\s*(?=[}\]])", "", part) if part[:1] != '"' else part
    return joined


def _closed(text: str) -> str:
    """Close the strings, lists and objects that an answer leaves open where it breaks off."""
    stack: list[str] = []
    is_string = is_escaped = False
    for at, one in enumerate(text):
        if is_string:
            if is_escaped:
                is_escaped = False
            elif one == "\\":
                is_escaped = True
            elif one == '"':
                is_string = False
        elif one == '"':
            is_string = True
        elif one in "{[":
            stack.append("}" if one == "{" else "]")
            if len(stack) > _DEEPEST:
                raise CaptionError("the answer's JSON is nested too deeply")
        elif one in "}]" and stack:
            stack.pop()
            if not stack:
                return text[: at + 1]
    if is_escaped:
        text = text[:-1]
    text = (text + '"' if is_string else text).rstrip().rstrip(",")
    text = re.sub(r'(,|\{)\s*"[^"]*"\s*:?\s*$', r"\1", text).rstrip().rstrip(",") if stack else text
    return text + "".join(reversed(stack))


def _fields(value: Mapping[str, Any], repairs: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    fields: dict[str, str] = {}
    tags: dict[str, str] = {}
    for key, one in value.items():
        name = _name(str(key))
        if name == "tags":
            tags = clean_tags(one) if isinstance(one, Mapping) else _listed(one)
        elif name is None:
            repairs.append(f"unknown key {clean(str(key), 40)!r} left out")
        else:
            if name != key:
                repairs.append(f"{clean(str(key), 40)!r} read as {name}")
            fields[name] = fields.get(name) or _text(name, one, repairs)
    return {name: text for name, text in fields.items() if text}, tags


def _listed(value: Any) -> dict[str, str]:
    values = value if isinstance(value, list) else [value]
    texts = [one for one in values if isinstance(one, str) and one.strip()]
    return clean_tags({"other": ", ".join(texts)}) if texts else {}


def _name(key: str) -> str | None:
    plain = re.sub(r"[^a-z]+", "_", key.lower()).strip("_")
    if plain in (*FIELDS, "tags"):
        return plain
    if plain in _ALIASES:
        return _ALIASES[plain]
    near = get_close_matches(plain, FIELDS, 1, 0.85)
    return near[0] if near else None


def _text(name: str, value: Any, repairs: list[str]) -> str:
    if isinstance(value, list):
        repairs.append(f"{name} was a list")
        value = ", ".join(str(one) for one in value if isinstance(one, str | int | float))
    elif isinstance(value, Mapping):
        repairs.append(f"{name} was an object")
        value = ", ".join(str(one) for one in value.values() if isinstance(one, str | int | float))
    elif value is None or isinstance(value, bool):
        return ""
    elif not isinstance(value, str):
        repairs.append(f"{name} was a number")
        value = str(value)
    text = clean(value, LIMITS[name])
    if len(value) > LIMITS[name] and len(text) < len(" ".join(value.split())):
        repairs.append(f"{name} was too long")
    return "" if text.lower().rstrip(".") in _NOTHING else text
