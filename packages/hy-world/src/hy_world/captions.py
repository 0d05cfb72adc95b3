"""Say in English what a scene shows, in many ways, and note which attributes the words pin down.

A caption may leave attributes out ("a red circle moves right" says nothing about size or background); what
isn't said is free, so `Caption` carries what is. There are three wordings: "train"; "heldout", sentences and
phrases that no training caption has, built of words that training captions use; and "unseen", with verbs that
they never use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from hy_core.errors import UsageError

from hy_world.scene import FRAMES, Scene, Thing

WORDINGS = ("train", "heldout", "unseen")

_COLOUR = {"purple": ("purple", "violet"), "cyan": ("cyan", "turquoise")}
_SHAPE = {"circle": ("circle", "disc", "ball"), "square": ("square", "box")}
_SIZE = {"small": ("small", "little", "tiny"), "large": ("large", "big", "huge")}

# Each phrase as (he does, doing).
_MOVE = (
    ("moves {}", "moving {}"),
    ("goes {}", "going {}"),
    ("slides {}", "sliding {}"),
    ("travels {}", "traveling {}"),
)


def _moves(*ways: str) -> tuple[tuple[str, str], ...]:
    return tuple((does.format(way), doing.format(way)) for way in ways for does, doing in _MOVE)


_MOTION = {
    "right": _moves("right", "to the right", "from left to right"),
    "left": _moves("left", "to the left", "from right to left"),
    "up": _moves("up", "upwards", "from the bottom to the top"),
    "down": _moves("down", "downwards", "from the top to the bottom"),
    "bounce": (
        ("bounces", "bouncing"),
        ("bounces up and down", "bouncing up and down"),
        ("hops on the spot", "hopping on the spot"),
        ("keeps bouncing", "that keeps bouncing"),
    ),
    "spin": (
        ("spins", "spinning"),
        ("rotates", "rotating"),
        ("spins around", "spinning around"),
        ("turns on the spot", "turning on the spot"),
    ),
    "grow": (
        ("grows", "growing"),
        ("gets bigger", "getting bigger"),
        ("becomes larger", "becoming larger"),
        ("expands", "expanding"),
    ),
    "shrink": (
        ("shrinks", "shrinking"),
        ("gets smaller", "getting smaller"),
        ("becomes smaller", "becoming smaller"),
        ("contracts", "contracting"),
    ),
    "still": (
        ("stays still", "staying still"),
        ("does not move", "that does not move"),
        ("rests", "resting"),
        ("stays where it is", "staying where it is"),
    ),
}
_MOTION_HELDOUT = {
    "right": (("keeps moving right", "that keeps moving right"), ("moves from the left to the right",) * 2),
    "left": (("keeps moving left", "that keeps moving left"), ("moves from the right to the left",) * 2),
    "up": (("keeps moving up", "that keeps moving up"), ("moves from bottom to top",) * 2),
    "down": (("keeps moving down", "that keeps moving down"), ("moves from top to bottom",) * 2),
    "bounce": (("keeps hopping up and down", "that keeps hopping up and down"), ("hops", "hopping")),
    "spin": (("keeps rotating", "that keeps rotating"), ("rotates on the spot", "rotating on the spot")),
    "grow": (("keeps growing", "that keeps growing"), ("becomes bigger", "becoming bigger")),
    "shrink": (
        ("keeps shrinking", "that keeps shrinking"),
        ("keeps getting smaller", "that keeps getting smaller"),
    ),
    "still": (("rests where it is", "resting where it is"), ("stays on the spot", "staying on the spot")),
}
_MOTION_UNSEEN = {
    "right": (("glides to the right", "gliding to the right"), ("rushes right", "rushing right")),
    "left": (("glides to the left", "gliding to the left"), ("rushes left", "rushing left")),
    "up": (("rises up", "rising up"), ("climbs upwards", "climbing upwards")),
    "down": (("sinks down", "sinking down"), ("falls downwards", "falling downwards")),
    "bounce": (("jumps up and down", "jumping up and down"), ("leaps on the spot", "leaping on the spot")),
    "spin": (("twirls around", "twirling around"), ("whirls on the spot", "whirling on the spot")),
    "grow": (("swells and gets bigger", "swelling and getting bigger"), ("inflates", "inflating")),
    "shrink": (("dwindles and gets smaller", "dwindling and getting smaller"), ("deflates", "deflating")),
    "still": (("remains still", "remaining still"), ("stands still", "standing still")),
}
_PHRASES: dict[str, Mapping[str, tuple[tuple[str, str], ...]]] = {
    "train": _MOTION,
    "heldout": _MOTION_HELDOUT,
    "unseen": _MOTION_UNSEEN,
}
_PLAIN = ("on a {} background", "against a {} background", "in front of a {} wall", "on {}")
_PLAIN_HELDOUT = ("in front of a {} background", "against a {} wall")
_WHERE = {
    "white": tuple(way.format("white") for way in _PLAIN),
    "black": tuple(way.format("black") for way in _PLAIN),
    "gray": tuple(way.format(name) for name in ("gray", "grey") for way in _PLAIN),
    "sky": ("in the sky", "in front of a blue sky", "on a sky background", "against the blue sky"),
    "sunset": ("at sunset", "in front of a sunset", "on a sunset background", "against the evening sky"),
    "checkerboard": ("on a checkerboard", "in front of a checkered wall", "on a checkered background"),
}
_WHERE_HELDOUT = {
    **{name: tuple(way.format(name) for way in _PLAIN_HELDOUT) for name in ("white", "black", "gray")},
    "sky": ("against a sky background", "in a blue sky"),
    "sunset": ("against a sunset", "in the evening at sunset"),
    "checkerboard": ("against a checkered background", "in front of a checkerboard"),
}

# {a}: the thing ("a red circle"), {does}/{doing}: its motion, {where}: the background. Without motion or
# background the sentences that need them are left out.
_ONE = (
    "{a} {does} {where}",
    "{a} {doing} {where}",
    "{where}, {a} {does}",
    "{a} {where} {does}",
    "a video of {a} {doing} {where}",
    "a clip of {a} that {does} {where}",
    "there is {a} {where} and it {does}",
    "{a} {does}",
    "{a} {doing}",
    "a video of {a} {doing}",
    "there is {a} and it {does}",
    "{a} {where}",
    "there is {a} {where}",
    "{a}",
)
_ONE_HELDOUT = (
    "{where} there is {a} that {does}",
    "a clip of {a} {doing} {where}",
    "there is {a} that {does}",
    "a clip of {a} {doing}",
    "a clip of {a} {where}",
    "a clip of {a}",
)
_TWO = (
    "{a} {does} and {b} {does2} {where}",
    "{where}, {a} {does} and {b} {does2}",
    "{a} {does} while {b} {does2} {where}",
    "{a} {doing} and {b} {doing2} {where}",
    "a video of {a} {doing} and {b} {doing2} {where}",
    "{a} {does} and {b} {does2}",
    "{a} {does} while {b} {does2}",
    "{a} {doing} and {b} {doing2}",
    "{a} and {b} {where}",
    "there is {a} and {b} {where}",
    "{a} and {b}",
)
_TWO_HELDOUT = (
    "{where} there is {a} that {does} while {b} {does2}",
    "a clip of {a} {doing} while {b} {does2} {where}",
    "a clip of {a} that {does} and {b} that {does2}",
    "a clip of {a} and {b} {where}",
    "a clip of {a} and {b}",
)
_PICTURE = (
    "a picture of {a} {where}",
    "a picture of {a}",
    "a picture of {a} and {b} {where}",
    "a picture of {a} and {b}",
)


@dataclass(frozen=True)
class Caption:
    """A text and what it states."""

    text: str
    stated: tuple[frozenset[str], ...]  # of colour, shape, size, motion; for each thing in the scene's order
    background: bool


def caption(
    rng: np.random.Generator,
    scene: Scene,
    frames: int = FRAMES,
    wording: str = "train",
    full: bool = False,
) -> Caption:
    """Describe a scene in one of the `WORDINGS`. A picture's caption (`frames` = 1) states no motion.

    Colours of two things are always said, for they tell them apart. `full` leaves nothing out.
    """
    if wording not in WORDINGS:
        raise UsageError(f"no wording {wording!r}", f"one of {', '.join(WORDINGS)}")
    moving = frames > 1 and (full or rng.random() < 0.94)
    background = full or rng.random() < 0.65
    order = rng.permutation(len(scene.things))
    said: dict[int, tuple[str, frozenset[str]]] = {}
    parts = {"where": _pick(rng, (_WHERE_HELDOUT if wording == "heldout" else _WHERE)[scene.background])}
    for suffix, name, index in zip(("", "2"), "ab", order, strict=False):
        thing = scene.things[index]
        said[index] = _name(rng, thing, full, alone=len(order) == 1)
        parts[name] = said[index][0]
        phrases = _PHRASES[wording][thing.motion]
        parts["does" + suffix], parts["doing" + suffix] = phrases[_index(rng, len(phrases))]
    text = _pick(rng, _sentences(wording, len(order), moving, background, frames == 1)).format(**parts)
    return Caption(
        _polish(rng, text),
        tuple(said[i][1] | ({"motion"} if moving else set()) for i in range(len(order))),
        background,
    )


def _sentences(wording: str, things: int, moving: bool, background: bool, picture: bool) -> list[str]:
    if wording == "heldout":
        pool: tuple[str, ...] = _ONE_HELDOUT if things == 1 else _TWO_HELDOUT
    else:
        pool = _ONE if things == 1 else _TWO
    if picture and wording != "heldout":
        pool = (*pool, *_PICTURE)
    return [
        sentence
        for sentence in pool
        if ("{do" in sentence) == moving
        and ("{where}" in sentence) == background
        and ("{b}" in sentence) == (things == 2)
    ]


def _name(rng: np.random.Generator, thing: Thing, full: bool, alone: bool) -> tuple[str, frozenset[str]]:
    """Return the thing's noun phrase and what it states."""
    size = full or rng.random() < 0.5
    colour = full or not alone or rng.random() < 0.93
    shape = full or rng.random() < 0.96
    big = _pick(rng, _SIZE[thing.size])
    hue = _pick(rng, _COLOUR.get(thing.colour, (thing.colour,)))
    noun = _pick(rng, _SHAPE.get(thing.shape, (thing.shape,))) if shape else _pick(rng, ("shape", "thing"))
    words = [big] * size + [hue] * colour + [noun]
    if colour and rng.random() < 0.12:
        words = [big] * size + [noun, "in", hue]
    stated = [name for name, is_said in (("size", size), ("colour", colour), ("shape", shape)) if is_said]
    return f"{'an' if words[0][0] in 'aeiou' else 'a'} {' '.join(words)}", frozenset(stated)


def _index(rng: np.random.Generator, count: int) -> int:
    """Draw an index; the first, plainest one comes most often."""
    return 0 if rng.random() < 0.3 else int(rng.integers(count))


def _pick(rng: np.random.Generator, choices: tuple[str, ...] | list[str]) -> str:
    return choices[_index(rng, len(choices))]


def _polish(rng: np.random.Generator, text: str) -> str:
    """Write some as sentences, most as prompts are typed."""
    way = rng.random()
    if way < 0.25:
        return text[0].upper() + text[1:] + "."
    return text[0].upper() + text[1:] if way < 0.4 else text
