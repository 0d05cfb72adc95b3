"""Many more ways to say what a scene shows than the world's captions have, with every attribute word marked.

The pocket language model learns from these that "crimson" and "red", "a disc" and "a circle", "climbs" and
"moves up" mean the same, so that prompts in a person's own words come out sensibly.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from hy_world.attributes import BACKGROUNDS, COLOURS, MOTIONS, SHAPES, SIZES
from hy_world.captions import Caption
from hy_world.scene import Scene

# What can be said of one thing, and of the whole: (attribute, values). Value 0 of every label is "not said".
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "size": tuple(SIZES),
    "motion": MOTIONS,
}
THINGS = 2

T = TypeVar("T")

COLOUR_WORDS = {
    "red": ("red", "red", "crimson", "scarlet", "ruby", "cherry red", "bright red", "dark red"),
    "orange": ("orange", "orange", "tangerine", "pumpkin", "carrot orange", "bright orange"),
    "yellow": ("yellow", "yellow", "golden", "lemon", "canary yellow", "bright yellow", "gold"),
    "green": ("green", "green", "emerald", "lime", "grass green", "jade", "dark green", "bright green"),
    "cyan": ("cyan", "cyan", "turquoise", "aqua", "teal", "light cyan", "bright cyan"),
    "blue": ("blue", "blue", "navy", "cobalt", "sapphire", "dark blue", "bright blue", "navy blue"),
    "purple": ("purple", "purple", "violet", "plum", "lilac", "dark purple", "indigo"),
    "pink": ("pink", "pink", "rose", "hot pink", "fuchsia", "light pink", "rosy"),
}
SHAPE_WORDS = {
    "circle": ("circle", "circle", "disc", "disk", "ball", "dot", "round shape", "sphere", "round thing"),
    "square": ("square", "square", "box", "block", "cube", "tile", "square shape"),
    "triangle": ("triangle", "triangle", "triangular shape", "pyramid", "wedge", "three sided shape"),
    "star": ("star", "star", "five pointed star", "pointed star", "star shape"),
}
SIZE_WORDS = {
    "small": ("small", "small", "little", "tiny", "mini", "very small", "minute"),
    "large": ("large", "large", "big", "huge", "giant", "very big", "enormous", "great"),
}
# Verbs as (base, third person, -ing).
_V = {
    verb: (verb, third, ing)
    for verb, third, ing in (
        row.split()
        for row in (
            "move moves moving;go goes going;slide slides sliding;travel travels traveling;"
            "drift drifts drifting;glide glides gliding;head heads heading;run runs running;"
            "fly flies flying;float floats floating;roll rolls rolling;shift shifts shifting;"
            "race races racing;rush rushes rushing;walk walks walking;rise rises rising;"
            "climb climbs climbing;ascend ascends ascending;lift lifts lifting;soar soars soaring;"
            "fall falls falling;drop drops dropping;sink sinks sinking;descend descends descending;"
            "bounce bounces bouncing;hop hops hopping;jump jumps jumping;leap leaps leaping;"
            "spring springs springing;spin spins spinning;rotate rotates rotating;turn turns turning;"
            "twirl twirls twirling;whirl whirls whirling;revolve revolves revolving;pivot pivots pivoting;"
            "grow grows growing;expand expands expanding;swell swells swelling;inflate inflates inflating;"
            "get gets getting;become becomes becoming;enlarge enlarges enlarging;shrink shrinks shrinking;"
            "contract contracts contracting;dwindle dwindles dwindling;deflate deflates deflating;"
            "stay stays staying;remain remains remaining;rest rests resting;stand stands standing;"
            "sit sits sitting;keep keeps keeping;wait waits waiting"
        ).split(";")
    )
}
_GO = "move move go slide travel drift glide head run fly float roll shift race rush walk".split()
# Motion → (verbs, what follows); "" follows where the verb alone says it.
_MOTION_PHRASES: dict[str, tuple[tuple[list[str], tuple[str, ...]], ...]] = {
    "right": (
        (_GO, ("right", "right", "to the right", "rightwards", "from left to right", "towards the right",
               "from the left to the right", "to the right side", "across to the right", "east")),
    ),
    "left": (
        (_GO, ("left", "left", "to the left", "leftwards", "from right to left", "towards the left",
               "from the right to the left", "to the left side", "across to the left", "west")),
    ),
    "up": (
        (_GO, ("up", "up", "upwards", "upward", "to the top", "from bottom to top",
               "from the bottom to the top", "towards the top")),
        ("rise climb ascend lift soar".split(), ("", "", "up", "upwards", "to the top", "higher")),
    ),
    "down": (
        (_GO, ("down", "down", "downwards", "downward", "to the bottom", "from top to bottom",
               "from the top to the bottom", "towards the bottom")),
        ("fall drop sink descend".split(), ("", "", "down", "downwards", "to the bottom", "lower")),
    ),
    "bounce": (
        ("bounce bounce hop jump leap spring".split(),
         ("", "", "up and down", "on the spot", "again and again", "on the floor", "off the ground")),
        (["move", "go"], ("up and down",)),
    ),
    "spin": (
        ("spin spin rotate twirl whirl revolve pivot".split(),
         ("", "", "around", "in place", "on the spot", "in circles", "quickly", "round and round")),
        (["turn"], ("around", "in place", "on the spot", "round and round")),
    ),
    "grow": (
        ("grow grow expand swell inflate enlarge".split(), ("", "", "in size", "slowly")),
        (["get", "become", "grow"], ("bigger", "larger", "bigger and bigger")),
    ),
    "shrink": (
        ("shrink shrink contract dwindle deflate".split(), ("", "", "in size", "slowly")),
        (["get", "become"], ("smaller", "smaller and smaller", "tiny")),
    ),
    "still": (
        (["stay", "stay", "remain", "stand", "sit", "rest", "keep"], ("still", "motionless", "in place")),
        (["stay", "remain", "rest"], ("where it is", "on the spot")),
        (["rest", "wait"], ("",)),
    ),
}  # fmt: skip
_NOT_MOVING = (  # base, third person, -ing
    ("not move", "does not move", "not moving"),
    ("not move", "doesn't move", "without moving"),
    ("be still", "is still", "being still"),
    ("be motionless", "is motionless", "standing quite still"),
)
_PLAIN_PLACES = (
    "on a {} background", "against a {} background", "in front of a {} wall", "on {}", "with a {} background",
    "over a {} background", "in front of {}", "on a plain {} background", "against {}", "{} background",
    "before a {} wall", "on a {} floor", "in a {} room",
)  # fmt: skip
PLACES = {
    **{
        name: tuple(place.format(word) for word in words for place in _PLAIN_PLACES)
        for name, words in (("white", ("white", "pure white")), ("black", ("black", "pitch black")))
    },
    "gray": tuple(place.format(word) for word in ("gray", "grey") for place in _PLAIN_PLACES),
    "sky": (
        "in the sky", "in front of a blue sky", "on a sky background", "against the blue sky",
        "under a clear sky", "against a sky background", "in a blue sky", "before a pale sky",
        "with the sky behind",
        "in the clear blue sky", "sky background", "high in the sky", "in daylight outdoors",
    ),
    "sunset": (
        "at sunset", "in front of a sunset", "on a sunset background", "against the evening sky", "at dusk",
        "against a sunset", "in the evening", "in the evening at sunset", "in the evening light",
        "sunset background",        "before the setting sun", "with a sunset behind", "in the twilight",
    ),
    "checkerboard": (
        "on a checkerboard", "in front of a checkered wall", "on a checkered background", "on a chessboard",
        "against a checkered background", "in front of a checkerboard", "on a checkered floor",
        "on checkered tiles",
        "with a checkerboard behind", "checkerboard background", "on a checked pattern",
    ),
}  # fmt: skip
_OPENINGS = (
    "a video of", "a clip of", "a video showing", "there is", "we see", "an animation of", "watch", "show me",
    "a film of", "footage of", "look at", "please make", "a scene with", "you can see", "imagine",
    "a movie of",
)  # fmt: skip
_VAGUE = ("thing", "shape", "object", "figure", "something")
_JOINS = ("and", "and", "while", ",", ".", "as", "next to it", "; then", "with", ", and", "beside it")


@dataclass
class Wording:
    """A text under construction, and where in it what is said.

    `marks` are (end of the word in the text, attribute, value); `said` is each thing's attributes by order of
    mention.
    """

    text: str = ""
    marks: list[tuple[int, str, str]] = field(default_factory=list)
    said: list[dict[str, str]] = field(default_factory=list)
    background: str | None = None

    def add(self, words: str, attribute: str = "", value: str = "") -> None:
        """Append words, with a space before them unless they are punctuation."""
        if words:
            self.text += words if not self.text or words[0] in ",.;:" else f" {words}"
        if attribute:
            self.marks.append((len(self.text), attribute, value))


def write(rng: np.random.Generator) -> Wording:
    """Make up one or two things and say them in words of our own; anything may be left out."""
    wording = Wording()
    background = _pick(rng, BACKGROUNDS) if rng.random() < 0.65 else None
    first = rng.random() < 0.2
    if background and first:
        _place(rng, wording, background)
        wording.add("," if rng.random() < 0.7 else _pick(rng, ("there is", "we see", "")))
    elif rng.random() < 0.3:
        wording.add(_pick(rng, _OPENINGS))
    for i in range(THINGS if rng.random() < 0.35 else 1):
        if i:
            wording.add(_pick(rng, _JOINS))
        _thing(rng, wording)
    if background and not first:
        wording.add("," if rng.random() < 0.2 else "")
        _place(rng, wording, background)
    wording.background = background
    if rng.random() < 0.25:
        wording.add(".")
    return wording


def label(scene: Scene, caption: Caption) -> Wording:
    """Turn a caption of the world into a `Wording` without marks; things in the order of their naming."""
    text = caption.text.lower().replace("blue sky", "sky")

    def place(i: int) -> int:
        words = "|".join(map(re.escape, COLOUR_WORDS[scene.things[i].colour]))
        found = re.search(rf"\b({words})\b", text)
        return found.start() if found else len(text)

    said = [
        {name: getattr(scene.things[i], name) for name in caption.stated[i]}
        for i in sorted(range(len(scene.things)), key=place)
    ]
    return Wording(caption.text, [], said, scene.background if caption.background else None)


def _thing(rng: np.random.Generator, wording: Wording) -> None:
    said = {name: _pick(rng, values) for name, values in ATTRIBUTES.items()}
    for name, kept in (("colour", 0.92), ("shape", 0.92), ("size", 0.5), ("motion", 0.9)):
        if rng.random() > kept:
            del said[name]
    if not said.keys() & {"colour", "shape", "size"}:
        said["shape"] = _pick(rng, SHAPES)
    wording.said.append(said)
    colour = _pick(rng, COLOUR_WORDS[said["colour"]]) if "colour" in said else ""
    size = _pick(rng, SIZE_WORDS[said["size"]]) if "size" in said else ""
    noun = _pick(rng, SHAPE_WORDS[said["shape"]]) if "shape" in said else _pick(rng, _VAGUE)
    order = (
        [("size", size), ("colour", colour)] if rng.random() < 0.85 else [("colour", colour), ("size", size)]
    )
    late = colour != "" and rng.random() < 0.12
    front = [(name, word) for name, word in order if word and not (late and name == "colour")]
    start = rng.random()
    if start < 0.8:
        opener = front[0][1] if front else noun
        wording.add(_pick(rng, ("the", "one")) if start < 0.1 else "an" if opener[0] in "aeiou" else "a")
    for name, word in front:
        wording.add(word, name, said[name])
    wording.add(noun, *(("shape", said["shape"]) if "shape" in said else ()))
    if late:
        wording.add(_pick(rng, ("in", "that is", ", coloured", "of colour", "painted")))
        wording.add(colour, "colour", said["colour"])
    if "motion" in said:
        base, third, ing = _motion(rng, said["motion"])
        ways = (
            ("", third), ("", ing), ("that", third), ("which", third), ("is", ing), ("and it", third),
            (",", ing), ("can", base), ("starts to", base), ("should", base), ("keeps", ing),
            ("that is", ing),
        )  # fmt: skip
        lead, words = ways[0] if rng.random() < 0.3 else _pick(rng, ways)
        wording.add(lead)
        wording.add(words, "motion", said["motion"])


def _motion(rng: np.random.Generator, motion: str) -> tuple[str, ...]:
    if motion == "still" and rng.random() < 0.3:
        return _pick(rng, _NOT_MOVING)
    verbs, tails = _pick(rng, _MOTION_PHRASES[motion])
    tail = _pick(rng, tails)
    return tuple(f"{form} {tail}".strip() for form in _V[_pick(rng, verbs)])


def _place(rng: np.random.Generator, wording: Wording, background: str) -> None:
    wording.add(_pick(rng, PLACES[background]), "background", background)


def _pick(rng: np.random.Generator, choices: Sequence[T]) -> T:
    return choices[int(rng.integers(len(choices)))]
