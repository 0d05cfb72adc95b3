"""Say in English who is in a clip of characters and what they do, in many ways; note what the words state."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hy_core.errors import UsageError

from hy_world.characters import Character, Stage

WORDINGS = ("train", "heldout")

_WHO = ("a person", "someone", "a character", "a puppet")
_STYLE = {"short": ("short",), "long": ("long",), "spiky": ("spiky",)}
_FACE = {"round": ("a round face",), "long": ("a long face", "a narrow face"), "square": ("a square face",)}
_MOOD: dict[str, tuple[str, ...]] = {
    "neutral": ("with a calm face", "looking calm", "with a neutral expression"),
    "happy": ("with a happy face", "looking happy", "smiling"),
    "sad": ("with a sad face", "looking sad", "with a sad expression"),
    "angry": ("with an angry face", "looking angry", "frowning"),
    "surprised": ("with a surprised face", "looking surprised", "with wide eyes"),
}
_MOOD_HELDOUT: dict[str, tuple[str, ...]] = {
    "neutral": ("and looks calm",),
    "happy": ("and looks happy",),
    "sad": ("and looks sad",),
    "angry": ("and looks angry",),
    "surprised": ("and looks surprised",),
}
_ACTION: dict[str, tuple[str, ...]] = {
    "stand": ("stands still", "stands"),
    "wave": ("waves", "waves a hand"),
    "raise": ("raises both arms", "lifts the arms up and down"),
    "march": ("marches", "marches on the spot"),
    "squat": ("squats", "bends the knees"),
    "jump": ("does jumping jacks", "jumps with arms and legs apart"),
    "dance": ("dances", "moves arms and legs to music"),
}
_TALK = ("talks to the camera", "talks", "speaks", "says something")
_TALK_HELDOUT = ("speaks to the camera",)
_SILENT = ("is silent", "says nothing")
_VIEW = {
    "face": ("a close-up of", "a portrait of"),
    "upper": ("a clip of", "a half-length shot of"),
    "full": ("a full-body shot of", "a clip of"),
}
_WHERE: dict[str, tuple[str, ...]] = {
    "gray": ("in front of a gray wall", "on a gray background", "against a grey background"),
    "sky": ("in front of a blue sky", "on a sky background", "against the blue sky"),
    "sunset": ("in front of a sunset", "at sunset", "on a sunset background"),
    "checkerboard": ("in front of a checkered wall", "on a checkered background"),
}
_SENTENCES = (
    "{who} {mood} {does} {where}",
    "{where}, {who} {mood} {does}",
    "{view} {who} {mood} who {does} {where}",
    "{who} {does} {where}, {mood}",
)
_SENTENCES_HELDOUT = ("{where} there is {who} who {does} {mood}", "{view} {who} {mood} {where} who {does}")


@dataclass(frozen=True)
class CharacterCaption:
    """A text and what it states of each character, from left to right."""

    text: str
    stated: tuple[
        frozenset[str], ...
    ]  # of skin, hair, style, face, shirt, trousers, expression, action, talk
    background: bool


def describe(
    rng: np.random.Generator, stage: Stage, wording: str = "train", full: bool = False, plain: bool = False
) -> CharacterCaption:
    """Describe a stage in one of the `WORDINGS`; `full` leaves nothing out, `plain` all but that somebody talks."""
    if wording not in WORDINGS:
        raise UsageError(f"no wording {wording!r}", f"one of {', '.join(WORDINGS)}")
    if plain:
        texts = [f"{_pick(rng, _WHO)} {_speech(rng, one, wording)}" for one in stage.characters]
        return CharacterCaption(" and ".join(texts), tuple(frozenset({"talk"}) for _ in texts), False)
    background = full or rng.random() < 0.65
    parts: list[str] = []
    stated: list[frozenset[str]] = []
    for index, one in enumerate(stage.characters):
        said: set[str] = set()
        words = {
            "who": _who(rng, one, stage.framing, full, said),
            "mood": "",
            "does": _does(rng, one, stage.framing, wording, full, said),
            "view": _pick(rng, _VIEW[stage.framing]),
            "where": "",
        }
        expression = one.performance.expressions
        if len(set(expression)) == 1 and (full or rng.random() < 0.8):
            moods = _MOOD if wording == "train" else _MOOD_HELDOUT
            words["mood"] = _pick(rng, moods[expression[0]])
            said.add("expression")
        if background and index == 0:
            words["where"] = _pick(rng, _WHERE[stage.background])
        sentences = _SENTENCES if wording == "train" else _SENTENCES_HELDOUT
        parts.append(_tidy(_pick(rng, sentences).format(**words)))
        stated.append(frozenset(said))
    return CharacterCaption(" and ".join(parts), tuple(stated), background)


def _who(rng: np.random.Generator, one: Character, framing: str, full: bool, said: set[str]) -> str:
    look = one.look
    features: list[str] = []

    def mention(name: str, chance: float) -> bool:
        if full or rng.random() < chance:
            said.add(name)
            return True
        return False

    if mention("skin", 0.6):
        features.append(f"{look.skin} skin")
    hair = ([_pick(rng, _STYLE[look.style])] if mention("style", 0.5) else []) + (
        [look.hair] if mention("hair", 0.7) else []
    )
    if hair:
        features.append(" ".join([*hair, "hair"]))
    if mention("face", 0.25):
        features.append(_pick(rng, _FACE[look.face]))
    if mention("shirt", 0.6):
        features.append(f"{'an' if look.shirt[0] in 'aeiou' else 'a'} {look.shirt} shirt")
    if framing != "face" and mention("trousers", 0.5):
        features.append(f"{look.trousers} trousers")
    who = _pick(rng, _WHO)
    if not features:
        return who
    order = rng.permutation(len(features))
    listed = [features[i] for i in order]
    return f"{who} with " + (", ".join(listed[:-1]) + " and " + listed[-1] if len(listed) > 1 else listed[0])


def _does(
    rng: np.random.Generator, one: Character, framing: str, wording: str, full: bool, said: set[str]
) -> str:
    verbs: list[str] = []
    if framing != "face" and (full or rng.random() < 0.9):
        verbs.append(_pick(rng, _ACTION[one.performance.action]))
        said.add("action")
    if full or not verbs or rng.random() < 0.6:
        verbs.append(_speech(rng, one, wording))
        said.add("talk")
    return " and ".join(verbs)


def _speech(rng: np.random.Generator, one: Character, wording: str) -> str:
    if one.performance.mouth.max(initial=0) <= 0.2:
        return _pick(rng, _SILENT)
    return _pick(rng, _TALK if wording == "train" else _TALK_HELDOUT)


def _pick(rng: np.random.Generator, choices: tuple[str, ...]) -> str:
    return choices[rng.integers(len(choices))]


def _tidy(text: str) -> str:
    text = " ".join(text.split()).replace(" ,", ",")
    return text.strip(" ,")
