"""Words and sentences of one language for what the world can show, and the phrases with tags that the reader gets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from hy_core.errors import UsageError
from hy_core.tables import read_toml

from hy_world.attributes import BACKGROUNDS, COLOURS, MOTIONS, SHAPES, SIZES

LANGUAGES = ("en", "zh", "es")
ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "size": tuple(SIZES),
    "motion": MOTIONS,
    "background": BACKGROUNDS,
}
VALUES = tuple(f"{name}.{value}" for name, values in ATTRIBUTES.items() for value in values)
_FOLDER = Path(__file__).with_name("lexicons")
_SLOT = re.compile(r"\{[a-z0-9*]+\}")


@cache
def table(language: str) -> dict[str, Any]:
    """Return the file of a language; `UsageError` if there is none."""
    if language not in LANGUAGES:
        raise UsageError(f"no language {language!r}", f"one of {', '.join(LANGUAGES)}")
    return read_toml(_FOLDER / f"{language}.toml")


@cache
def phrases(language: str, attribute: str, value: str, heldout: bool = False) -> tuple[str, ...]:
    """Return the ways to say a value; motions as "base|third person|-ing". Held-out ones are in no training text."""
    words = table(language)
    held = tuple(words["heldout"].get(attribute, {}).get(value, ()))
    if heldout:
        return held
    if attribute != "motion":
        return tuple(one for one in words[attribute][value] if one not in held)
    return tuple(one for one in _motions(words["motion"], value) if one not in held)


def _motions(motions: Mapping[str, Any], value: str) -> list[str]:
    entry = motions[value]
    verbs = motions[entry["like"]]["verbs"] if "like" in entry else entry.get("verbs", [])
    said = []
    for verb in verbs:
        for tail in entry.get("tails", []):
            first = entry.get("order") == "tail verb"
            said.append("|".join(f"{tail}{form}" if first else f"{form} {tail}" for form in verb.split("|")))
    alone = entry.get("verbs2", []) * max(1, len(said) // max(1, len(entry.get("verbs2", [])) * 2))
    for verb in alone:
        said += [
            "|".join(f"{form} {tail}".strip() for form in verb.split("|"))
            for tail in entry.get("tails2", [""])
        ]
    return said + entry.get("phrases", []) * max(1, len(said) // 40)


@cache
def tagged(language: str) -> dict[str, tuple[str, ...]]:
    """Return the phrases of a language with their tags, without held-out ones; see `hy_core.rewrite.words.Lexicon`."""
    held = {form for phrase in _strings(table(language)["heldout"]) for form in phrase.split("|")}
    found: dict[str, list[str]] = {}
    for phrase, tag in _entries(table(language)):
        for form in _forms(phrase, tag, language):
            if form not in held and tag not in found.setdefault(form, []):
                found[form].append(tag)
    return {phrase: tuple(tags) for phrase, tags in found.items() if phrase}


def merged() -> dict[str, tuple[str, ...]]:
    """Return the phrases of all languages with their tags."""
    found: dict[str, tuple[str, ...]] = {}
    for language in LANGUAGES:
        for phrase, tags in tagged(language).items():
            found[phrase] = tuple(dict.fromkeys((*found.get(phrase, ()), *tags)))
    return found


def _entries(words: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for attribute in ("colour", "shape", "size", "background"):
        for value, said in words[attribute].items():
            yield from ((phrase, f"{attribute}.{value}") for phrase in said)
    for value, entry in words["motion"].items():
        for key, tag in (
            ("verbs", "go"),
            ("tails", f"motion.{value}"),
            ("verbs2", f"motion.{value}"),
            ("phrases", f"motion.{value}"),
            ("tails2", f"tail.{value}"),
        ):
            yield from ((phrase, tag) for phrase in entry.get(key, []))
    for shape in SHAPES:
        yield from ((one.partition(":")[0], f"outside.{shape}") for one in words["outside"][shape]["words"])
    for kind in ("motion", "background", "colour"):
        for value, said in words["outside"][kind].items():
            yield from ((phrase, f"outside.{kind}.{value}") for phrase in said)
    yield from ((phrase, "style") for phrase in words["style"]["words"])
    for name, said in words["fill"].items():
        yield from ((phrase, f"fill.{name}") for phrase in said)
    grammar = words["grammar"]
    yield from ((phrase, "article") for phrase in grammar["articles"])
    for name, tag in (("neg", "negation"), ("where", "where"), ("first", "where"), ("pair", "pair")):
        for template in grammar[name]:
            yield from ((part.strip(" ,.;:，。；："), tag) for part in _SLOT.split(template))


def _forms(phrase: str, tag: str, language: str) -> list[str]:
    """Return the inflected forms of a phrase: verbs' forms, plurals of English shapes, Spanish genders and plurals."""
    forms = phrase.split("|")
    kind = tag.removeprefix("outside.").partition(".")[0]
    if language == "en" and kind in ("shape", *SHAPES):
        forms += [f"{one}s" for one in forms if not one.endswith("s")]
    if language == "es" and (kind in ("colour", "size", "shape", *SHAPES) or tag == "motion.still"):
        forms += [re.sub(r"o\b", "a", one) for one in forms]
        forms += [re.sub(r"([aeo])\b", r"\1s", one) for one in forms]
    return forms


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    else:
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from _strings(one)
