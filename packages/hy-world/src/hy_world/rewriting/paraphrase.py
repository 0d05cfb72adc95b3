"""Say in free words of a language what a scene shows, with a label for every token.

A prompt is a list of pieces: text with the value that it states, the things of which it states it, and whether it names
what the world can't show. Held-out prompts use words and sentences that no training prompt has.

All of it is one subject: the grammar of free prompts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from hy_core.rewrite.words import MOST_TOKENS, tokens

from hy_world.rewriting import lexicon
from hy_world.rewriting.lexicon import ATTRIBUTES

T = TypeVar("T")
_PART = re.compile(r"(\{[a-z0-9*]+\})")
Said = dict[str, str]


@dataclass(frozen=True)
class Piece:
    """A part of a prompt: its text, what it states ("colour.red" or ""), of which things, whether it can't be shown."""

    text: str
    value: str = ""
    owners: tuple[int, ...] = ()
    outside: bool = False


@dataclass(frozen=True)
class Paraphrase:
    """A prompt with what it says of each thing, in order of mention, and of the background (None: nothing)."""

    pieces: tuple[Piece, ...]
    things: tuple[Said, ...]
    background: str | None
    joiner: str

    @property
    def text(self) -> str:
        """The prompt."""
        text = self.joiner.join(piece.text for piece in self.pieces if piece.text)
        return re.sub(r" +([,.;:!?)])", r"\1", re.sub(r"\( ", "(", re.sub(r" +", " ", text))).strip()

    def labelled(self) -> tuple[list[str], list[Piece]]:
        """Return the tokens of the prompt and the piece that each belongs to."""
        words: list[str] = []
        labels: list[Piece] = []
        for piece in self.pieces:
            parts = tokens(piece.text)
            words += parts
            labels += [replace(piece, value="", owners=()) if _is_mark(one) else piece for one in parts]
        return words[:MOST_TOKENS], labels[:MOST_TOKENS]


def _is_mark(word: str) -> bool:
    return not any(one.isalnum() for one in word)


@dataclass
class Writer:
    """Writes prompts in one language; `heldout` is the share of held-out words and sentences."""

    rng: np.random.Generator
    language: str
    heldout: float = 0.0
    grammar: Mapping[str, Any] = field(init=False)
    words: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.words = lexicon.table(self.language)
        self.grammar = self.words["grammar"]

    def write(
        self, things: Sequence[Said], background: str | None, distract: float = 0.3, outside: bool = False
    ) -> Paraphrase:
        """Write what is said of one or two things and of the background.

        `distract` is the probability of each kind of further words (politeness, style, negations); `outside` lets words
        stand for things that the world can't show.
        """
        self._outside = outside
        self._distract = distract
        self._things = list(things)
        pieces: list[Piece] = []
        is_first = background is not None and self.rng.random() < 0.25
        if self.rng.random() < 0.45:
            pieces.append(Piece(self._one("heldout_opening", self.words["fill"]["openings"])))
        if is_first:
            pieces += self._fill(self._one("", self.grammar["first"]), {"bg": background})
        if len(things) == 1:
            pieces += self._clause(0)
        else:
            pieces += self._pair()
        if background is not None and not is_first:
            pieces += self._fill(self._template("where"), {"bg": background})
        pieces += self._extras()
        if self.rng.random() < 0.3:
            pieces.append(Piece("。" if self.language == "zh" else self._pick((".", ".", "!", "...", "?"))))
        return Paraphrase(tuple(pieces), tuple(dict(one) for one in things), background, self.grammar["join"])

    # -- sentences

    def _clause(self, index: int) -> list[Piece]:
        said = self._things[index]
        if "motion" not in said:
            return self._fill("{np}", {}, index)
        while True:
            template = self._template("clause")
            if "{neg}" in template and self.rng.random() > self._distract:
                continue
            return self._fill(template, {}, index)

    def _pair(self) -> list[Piece]:
        moving = ["motion" in one for one in self._things]
        same = all(moving) and self._things[0]["motion"] == self._things[1]["motion"]
        while True:
            template = self._template("pair")
            shared = "12}" in template or "*}" in template
            if (shared and not same) or ("{does" in template or "{doing" in template) and not all(moving):
                continue
            if same and not shared and self.rng.random() < 0.6:
                continue
            return self._fill(template, {})

    def _extras(self) -> list[Piece]:
        pieces: list[Piece] = []
        mark = "，" if self.language == "zh" else ","
        fill = self.words["fill"]
        if self.rng.random() < self._distract / 2:
            for _ in range(self.rng.integers(1, 4)):
                pieces += [Piece(mark), Piece(self._pick(self.words["style"]["words"]), outside=True)]
        if self.rng.random() < self._distract / 4:
            pieces += [Piece(mark), Piece(self._pick(fill["camera"]), outside=True)]
        if self.rng.random() < self._distract / 4:
            pieces += [Piece(mark), *self._negation(len(self._things) - 1)]
        if self.rng.random() < self._distract / 2:
            pieces += [Piece(self._pick((mark, ""))), Piece(self._pick(fill["closings"]))]
        return pieces

    def _fill(self, template: str, values: Mapping[str, str | None], index: int = 0) -> list[Piece]:
        """Replace the slots of a template; those that end in 2 belong to the second thing, in 12 to both."""
        pieces: list[Piece] = []
        for part in _PART.split(template):
            if not part.startswith("{"):
                pieces.append(Piece(part.strip() if self.grammar["join"] else part))
                continue
            name = part[1:-1].rstrip("*")
            owners = (
                (0, 1)
                if name.endswith("12")
                else (1,)
                if name.endswith("2") or part.endswith("*}")
                else (index,)
            )
            name = name.rstrip("12")
            pieces += self._slot(name, owners, values)
        return [piece for piece in pieces if piece.text]

    def _slot(self, name: str, owners: tuple[int, ...], values: Mapping[str, str | None]) -> list[Piece]:
        index = owners[0]
        said = self._things[index]
        if name in ("np", "nq"):
            return self._noun_phrase(index, article=name == "np")
        if name == "clause":
            return self._clause(index)
        if name in ("does", "doing", "base"):
            if "motion" not in said:
                return []
            return self._motion(said["motion"], ("base", "does", "doing").index(name), owners)
        if name == "bg":
            return [self._background(str(values["bg"]))]
        if name == "a":
            articles = self.grammar.get("background_articles", self.grammar["articles"])
            return [Piece(self._pick([*articles, ""]))]
        if name in ("this", "that"):
            return self._again(1 if name == "that" else index)
        if name == "neg":
            return self._negation(index)
        if name in ("colour", "size", "shape"):
            return [self._attribute(name, said[name], owners)] if name in said else []
        if name in ("again", "adv"):
            return [Piece(self._pick(self.words["fill"]["again" if name == "again" else "adverbs"]))]
        if name == "art":
            return [Piece(self._pick(self.grammar["articles"]))]
        raise ValueError(f"a template has the unknown slot {name!r}")

    # -- parts

    def _noun_phrase(self, index: int, article: bool) -> list[Piece]:
        said = self._things[index]
        missing = [name for name in ("size", "colour") if name not in said]
        while True:
            template = self._template("np")
            if all(_can_drop(template, name) for name in missing):
                break
        if not article:
            template = template.replace("{art} ", "").replace("{art}", "")
        pieces: list[Piece] = []
        for part in _PART.split(template):
            name = part[1:-1]
            if not part.startswith("{"):
                pieces.append(Piece(part.strip() if self.grammar["join"] else part))
            elif name == "art":
                pieces.append(Piece(self._pick(self.grammar["articles"])))
            elif name in said:
                pieces.append(self._attribute(name, said[name], (index,)))
            elif name == "shape":
                pieces.append(Piece(self._pick(self.words["fill"]["vague"])))
        if self._outside and self.rng.random() < 0.15 and "colour" not in said:
            pieces.insert(1 if article else 0, self._outside_colour(index))
        pieces = [piece for piece in pieces if piece.text]
        if self.language == "en":
            for at, piece in enumerate(pieces[:-1]):
                if piece.text == "a" and pieces[at + 1].text[0] in "aeiou":
                    pieces[at] = Piece("an")
        return pieces

    def _attribute(self, name: str, value: str, owners: tuple[int, ...]) -> Piece:
        if self._outside and name == "shape" and self.rng.random() < 0.6:
            word = self._pick(self.words["outside"][value]["words"]).partition(":")[0]
            return Piece(word, f"shape.{value}", owners, True)
        return Piece(self._word(name, value), f"{name}.{value}", owners)

    def _outside_colour(self, index: int) -> Piece:
        options = self.words["outside"]["colour"]
        value = self._pick(list(options))
        word = self._pick(options[value])
        if value == "none":
            return Piece(word, outside=True)
        self._things[index]["colour"] = value
        return Piece(word, f"colour.{value}", (index,), True)

    def _motion(self, value: str, form: int, owners: tuple[int, ...]) -> list[Piece]:
        options = self.words["outside"]["motion"].get(value)
        if self._outside and options and self.rng.random() < 0.3:
            return [Piece(_form(self._pick(options), form), f"motion.{value}", owners, True)]
        return [Piece(_form(self._word("motion", value), form), f"motion.{value}", owners)]

    def _background(self, value: str) -> Piece:
        options = self.words["outside"]["background"].get(value)
        if value == "none" or (self._outside and options and self.rng.random() < 0.5):
            word = self._pick(options or self.words["outside"]["background"]["none"])
            return Piece(word, "" if value == "none" else f"background.{value}", outside=True)
        return Piece(self._word("background", value), f"background.{value}")

    def _again(self, index: int) -> list[Piece]:
        said = self._things[index]
        while True:
            template = self._pick(self.grammar["this"])
            if all(part[1:-1] in said for part in _PART.findall(template)):
                break
            if not said.keys() & {"colour", "shape"}:
                return [Piece(self._pick(self.words["fill"]["again"]))]
        return self._fill(template, {}, index)

    def _negation(self, index: int) -> list[Piece]:
        """Words that deny something: they state nothing."""
        said = self._things[index]
        name = self._pick(("colour", "shape", "motion", "size"))
        value = self._pick([one for one in ATTRIBUTES[name] if one != said.get(name)])
        if name == "motion" and value == "still":
            value = "spin"
        word = _form(self._word(name, value), self._pick((0, 2)))
        before, _, after = self._pick(self.grammar["neg"]).partition("{x}")
        return [Piece(part.strip()) for part in (before, word, after) if part.strip()]

    # -- choices

    def _word(self, attribute: str, value: str) -> str:
        held = lexicon.phrases(self.language, attribute, value, True)
        if held and self.rng.random() < self.heldout:
            return self._pick(held)
        options = lexicon.phrases(self.language, attribute, value)
        return options[0] if attribute != "motion" and self.rng.random() < 0.2 else self._pick(options)

    def _template(self, name: str) -> str:
        return self._one(f"heldout_{name}", self.grammar[name])

    def _one(self, heldout: str, options: Sequence[str]) -> str:
        held = self.grammar.get(heldout)
        return self._pick(held if held and self.rng.random() < self.heldout else options)

    def _pick(self, options: Sequence[T]) -> T:
        return options[int(self.rng.integers(len(options)))]


def _form(phrase: str, form: int) -> str:
    forms = phrase.split("|")
    return forms[form % len(forms)] if len(forms) == 3 else forms[0]


def _can_drop(template: str, name: str) -> bool:
    """Whether a slot stands among others without words of its own, so that a template makes sense without it."""
    parts = _PART.split(template)
    at = parts.index(f"{{{name}}}")
    return not parts[at - 1].strip() and not parts[at + 1].strip()


def misspell(rng: np.random.Generator, paraphrase: Paraphrase, rate: float) -> Paraphrase:
    """Put typing errors into words of four and more letters: swapped, missing, doubled or wrong letters."""

    def word(found: re.Match[str]) -> str:
        text = found.group()
        if rng.random() > rate:
            return text
        at = int(rng.integers(1, len(text) - 1))
        match int(rng.integers(4)):
            case 0:
                return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
            case 1:
                return text[:at] + text[at + 1 :]
            case 2:
                return text[:at] + text[at] + text[at:]
            case _:
                return text[:at] + "abcdefghijklmnopqrstuvwxyz"[rng.integers(26)] + text[at + 1 :]

    pieces = tuple(
        replace(p, text=re.sub(r"[^\W\d_\u4e00-\u9fff]{4,}", word, p.text)) for p in paraphrase.pieces
    )
    return replace(paraphrase, pieces=pieces)


def sample(rng: np.random.Generator, language: str, heldout: float = 0.0) -> Paraphrase:
    """Make up one or two things and say them; anything may be left out."""
    count = 2 if rng.random() < 0.4 else 1
    colours = rng.permutation(len(ATTRIBUTES["colour"]))
    shared = count == 2 and rng.random() < 0.3
    things: list[Said] = []
    for index in range(count):
        said = {
            name: ATTRIBUTES[name][rng.integers(len(ATTRIBUTES[name]))]
            for name in ("shape", "size", "motion")
        }
        said["colour"] = ATTRIBUTES["colour"][colours[index]]
        for name, kept in (("colour", 0.92), ("shape", 0.94), ("size", 0.55), ("motion", 0.9)):
            if rng.random() > kept:
                del said[name]
        if not said.keys() & {"colour", "shape"}:
            said["shape"] = ATTRIBUTES["shape"][rng.integers(4)]
        if shared and index and "motion" in things[0]:
            said["motion"] = things[0]["motion"]
        things.append(said)
    background = None
    if rng.random() < 0.62:
        places = ATTRIBUTES["background"]
        background = "none" if rng.random() < 0.05 else places[rng.integers(len(places))]
    writer = Writer(rng, language, heldout)
    made = writer.write(things, background, outside=rng.random() < 0.2)
    made = replace(made, things=tuple(things), background=None if background == "none" else background)
    return misspell(rng, made, 0.12) if rng.random() < 0.25 else made
