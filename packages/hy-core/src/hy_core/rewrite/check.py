"""The self-check of a rewrite by rules: lost or changed colours, numbers, directions, negations, names and quotes.

Texts may be in different languages: words are mapped to concepts first (concepts.toml). Sentence embeddings see neither
a flipped direction nor a swapped number, so these rules decide; embeddings are asked in addition where installed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache

from hy_core.rewrite.embeddings import similarity
from hy_core.rewrite.language import concepts, language_of

_SPACELESS = ("zh", "ja")
_QUOTED = re.compile('["“”«»「」『』]([^"“”«»「」『』]{1,200})["“”«»「」『』]')
_DIGITS = re.compile(r"(?<![\w.])\d+(?:[.,]\d+)?(?![\w])")
_DIGITS_SPACELESS = re.compile(r"(?<![\d.A-Za-z])\d+(?![\dA-Za-z])")
_NAME = re.compile(r"(?<![.!?:\"“«]\s)(?<!^)(?<=\s)([A-ZÀ-Þ][^\W\d_]{2,})")
_OPPOSITE = {"right": "left", "left": "right", "up": "down", "down": "up"}
LEAST_SIMILAR = 0.35
"""Sentence vectors of unrelated prompts are below it, of rewrites of one prompt far above."""


@dataclass
class Meaning:
    """The concepts of a text, in order."""

    colours: list[str] = field(default_factory=list)
    numbers: list[str] = field(default_factory=list)
    directions: list[str] = field(default_factory=list)
    negations: int = 0
    still: int = 0


def check(original: str, rewrite: str, mode: str = "normal") -> str:
    """Return what a rewrite lost or changed, "" if nothing; Master mode may add colours and numbers."""
    before, after = meaning(original), meaning(rewrite)
    problems = [
        *_lost("colour", before.colours, after.colours),
        *_lost("number", before.numbers, after.numbers),
        *_directions(before, after),
    ]
    if mode != "master":
        # A lost number may be written out as so many things, an added one can't be explained.
        added = [one for one in after.numbers if one not in before.numbers]
        problems += [
            f"the number {one} was added" for one in dict.fromkeys(added) if not _counts(original, one)
        ]
    if before.negations and not after.negations and not after.still:
        problems.append("a negation was lost")
    if after.negations and not before.negations and not before.still:
        problems.append("a negation was added")
    if before.still and not after.still and not after.negations:
        problems.append("it should not move")
    if after.still and not before.still and not before.negations and (before.directions or mode != "master"):
        problems.append("it should not be still")
    for quote in _QUOTED.findall(original):
        if quote.strip() and quote.strip().lower() not in rewrite.lower():
            problems.append(f"the quoted text {quote.strip()[:40]!r} was lost")
    if language_of(original) != "de":
        for name in dict.fromkeys(_NAME.findall(original)):
            if original != original.title() and name.lower() not in rewrite.lower() and not _is_known(name):
                problems.append(f"the name {name} was lost")
    if not problems and (like := similarity(original, rewrite)) is not None and like < LEAST_SIMILAR:
        problems.append(f"it says something else (similarity {like:.2f})")
    return "; ".join(dict.fromkeys(problems))


def meaning(text: str) -> Meaning:
    """Return the concepts of a text, in the language that it is in."""
    language = language_of(text)
    found = Meaning()
    table = language if language in concepts() else "en"
    rest = text.lower().replace("’", "'")
    pattern, names = _pattern(table)

    def take(match: re.Match[str]) -> str:
        for name in names[match.group()]:
            kind, _, value = name.partition(".")
            if kind == "colour":
                found.colours.append(value)
            elif kind == "number":
                found.numbers.append(value)
            elif kind == "direction":
                found.directions.append(value)
            elif kind == "negation":
                found.negations += 1
            elif kind == "still":
                found.still += 1
        return " "

    rest = pattern.sub(take, rest)
    digits = (_DIGITS_SPACELESS if table in _SPACELESS else _DIGITS).findall(rest)
    found.numbers += [one for one in digits if one != "1"]
    return found


@cache
def _pattern(language: str) -> tuple[re.Pattern[str], dict[str, list[str]]]:
    """Return a pattern that finds a language's phrases, longest first, and the concepts of each."""
    table = concepts()[language]
    names: dict[str, list[str]] = {}
    kinds = [("neutral", ""), ("still", "still"), ("negation", "negation")]
    entries = [(table.get(key, ""), name) for key, name in kinds]
    entries += [
        (said, f"{kind}.{v}") for kind in ("colour", "number", "direction") for v, said in table[kind].items()
    ]
    for said, name in entries:
        for phrase in said.split(","):
            if phrase and not (phrase in names and "" in names[phrase]):
                names.setdefault(phrase, []).append(name)
    ordered = "|".join(re.escape(one) for one in sorted(names, key=len, reverse=True))
    if language in _SPACELESS:
        return re.compile(ordered), names
    return re.compile(rf"(?<!\w)(?:{ordered})(?!\w)"), names


def _lost(what: str, before: list[str], after: list[str]) -> list[str]:
    return [f"the {what} {one} was lost" for one in dict.fromkeys(before) if one not in after]


def _directions(before: Meaning, after: Meaning) -> list[str]:
    problems = _lost("direction", before.directions, after.directions)
    for one in dict.fromkeys(after.directions):
        if one not in before.directions and _OPPOSITE[one] in before.directions:
            problems.append(f"the direction {one} was added")
    return problems


def _counts(original: str, number: str) -> bool:
    """Whether a text may name that many things one by one: two colours or two clauses are two things."""
    return number == "2" and (
        len(meaning(original).colours) > 1 or bool(re.search(r"\b(and|y|et|und|e|и)\b|[和与跟と]", original))
    )


def _is_known(word: str) -> bool:
    """Whether a capitalised word is an ordinary word of the concept tables."""
    return any(word.lower() in _pattern(language)[1] for language in concepts())
