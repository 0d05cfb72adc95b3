"""The rewriter that a model folder brings: a slot reader whose findings are written as the model's own captions.

Folder: config.json (sizes, labels, texts of captions), lexicon.json (phrases with tags), model.safetensors. It needs no
language model, and whatever it reads, the caption is one of the model's world.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hy_core.errors import HyError, MissingError
from hy_core.rewrite.rewriter import Draft, Rewriter
from hy_core.rewrite.words import MOST_TOKENS, Lexicon, fold, tokens
from hy_core.tables import read_json

if TYPE_CHECKING:
    from hy_core.rewrite.reader import Reader, Reading

FOLDER = "rewriter"
"""Name of the folder within a model folder."""
_NUMBERS = {"three", "four", "five", "six", "seven", "eight", "nine", "ten", "many", "several", "hundred"} | {
    *(
        "tres",
        "cuatro",
        "cinco",
        "seis",
        "siete",
        "ocho",
        "nueve",
        "diez",
        "muchos",
        "muchas",
        "varios",
        "varias",
    )
}
_NUMBERS_ZH = "三四五六七八九十百千万"
_CLASSIFIERS_ZH = "个颗只块张枚"


class SmallRewriter(Rewriter):
    """Reads slots with a small network and renders them as a caption; normal and master mode are alike."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = f"{folder.parent.name}/{folder.name}"
        self._loaded: tuple[Reader, Lexicon, dict[str, Any]] | None = None

    def load(self) -> tuple[Reader, Lexicon, dict[str, Any]]:
        """Return the network, the lexicon and the captions' texts; read once. `MissingError` if a file is missing."""
        if self._loaded is None:
            import torch
            from safetensors.torch import load_file

            from hy_core.rewrite.reader import Reader, ReaderConfig

            for name in ("config.json", "lexicon.json", "model.safetensors"):
                if not (self.folder / name).is_file():
                    raise MissingError(
                        f"{self.folder / name} is missing", "the rewriter's folder is incomplete"
                    )
            config = read_json(self.folder / "config.json")
            try:
                reader = Reader(ReaderConfig.from_dict(config["reader"]))
                state = load_file(self.folder / "model.safetensors")
                reader.load_state_dict({name: value.to(torch.float32) for name, value in state.items()})
                lexicon = Lexicon(read_json(self.folder / "lexicon.json"))
            except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
                line = " ".join(str(error).split())[:120]
                raise HyError(f"{self.folder} holds no rewriter that hy can load: {line}") from error
            self._loaded = reader.eval(), lexicon, config["captions"]
        return self._loaded

    def draft(self, prompt: str, mode: str, complaint: str = "") -> Draft:
        """Read the prompt's slots and write the caption; warnings name what the model can't show."""
        reading, words = self.read(prompt)
        captions = self.load()[2]
        if not reading.things or not self.is_supported(reading, words):
            raise HyError("no thing that the model can show was understood")
        warnings = list(warned(reading, captions))
        if len(words) > MOST_TOKENS:
            warnings.append(f"only the first {MOST_TOKENS} words were read")
        if number := too_many(words):
            warnings.append(f"{number!r}: at most two things are shown")
        caption = {"things": reading.things, **reading.scene}
        return Draft(
            render(reading.things, reading.scene, captions), caption, tuple(warnings), is_checked=True
        )

    def is_supported(self, reading: Reading, words: list[str]) -> bool:
        """Whether a word that the lexicon knows stands behind a reading: the network alone would read anything."""
        matches = self.load()[1].match([fold(word) for word in words[:MOST_TOKENS]])
        known = {
            at for one in matches if any("." in tag for tag in one.tags) for at in range(one.start, one.end)
        }
        sources = set(reading.sources.values())
        return bool(sources & known)

    def read(self, prompt: str) -> tuple[Reading, list[str]]:
        """Return what a prompt says, and its tokens."""
        import torch

        from hy_core.rewrite.reader import collate, features, interpret

        reader, lexicon, _ = self.load()
        words = tokens(prompt)
        with torch.inference_mode():
            found = features(words, lexicon, reader.config)
            reading = interpret(reader(collate([found])), 0, found, words, reader.config)
        for name in reader.config.scene:
            if name not in reading.scene and (value := certain(name, words, lexicon)):
                reading.scene[name] = value
        return reading, words


def certain(attribute: str, words: list[str], lexicon: Lexicon) -> str:
    """Return the value of a phrase that means nothing else, "" if there is none, several, or a negation before it."""
    found, denied = set(), -9
    for match in lexicon.match([fold(word) for word in words[:MOST_TOKENS]]):
        if "negation" in match.tags:
            denied = match.end
        kind, _, value = match.tags[0].partition(".")
        if len(match.tags) == 1 and kind == attribute and match.start - denied > 3:
            found.add(value)
    return found.pop() if len(found) == 1 else ""


def render(things: list[dict[str, str]], scene: Mapping[str, str], captions: Mapping[str, Any]) -> str:
    """Write slots as a caption in the texts of config.json."""
    texts = captions["texts"]
    clauses = []
    for thing in things:
        words = [
            texts[name][thing[name]] if name in thing else captions["nameless"].get(name, "")
            for name in captions["thing"]
        ]
        noun = " ".join(word for word in words if word)
        article = "an" if noun[0] in "aeiou" else "a"
        motion = texts[captions["motion"]][thing[captions["motion"]]] if captions["motion"] in thing else ""
        clauses.append(f"{article} {noun} {motion}".strip())
    ends = [texts[name][scene[name]] for name in captions["scene"] if name in scene]
    return " ".join([f" {captions['join']} ".join(clauses), *ends])


def warned(reading: Reading, captions: Mapping[str, Any]) -> list[str]:
    """Say which words of a prompt are shown as something else or left out, and change what the model can't show."""
    texts, warnings, left_out = captions["texts"], [], []
    for words, shown in reading.outside:
        attribute, _, value = shown.partition(".")
        if shown:
            warnings.append(f"{words!r} is shown as {texts[attribute][value]!r}")
        else:
            left_out.append(repr(words))
    if left_out:
        warnings.append(f"left out: {', '.join(left_out)}")
    for thing in reading.things:
        for pair in captions["impossible"]:
            if all(thing.get(name) == value for name, value in pair.items()):
                said = " that ".join(texts[name][value] for name, value in pair.items())
                warnings.append(f"{said}: can't be seen, because it looks the same at every moment")
                thing.pop(captions["motion"], None)
    colours = [thing.get("colour") for thing in reading.things]
    if len(colours) == 2 and None not in colours and colours[0] == colours[1]:
        warnings.append(f"two things in {colours[0]}: the second one's colour is left open")
        reading.things[1].pop("colour")
    return warnings


def too_many(words: list[str]) -> str:
    """Return a word for a number of things over two, "" if there is none."""
    for at, word in enumerate(words):
        folded = fold(word)
        is_number = folded in _NUMBERS or (folded.isdecimal() and 3 <= int(folded[:6]) <= 10**5)
        after = words[at + 1] if at + 1 < len(words) else ""
        if word in _NUMBERS_ZH and after in _CLASSIFIERS_ZH and after:
            return word + after
        if is_number and fold(after) not in (
            "sided",
            "pointed",
            "cornered",
            "armed",
            "sides",
            "points",
            "corners",
            "k",
        ):
            return word
    return ""
