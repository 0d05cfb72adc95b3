"""Free wordings of the world's scenes, for the evaluation: held-out words and sentences of each language."""

from __future__ import annotations

import numpy as np

from hy_world.captions import Caption
from hy_world.rewriting.paraphrase import Said, Writer, misspell
from hy_world.scene import Scene

HELDOUT = 0.6
"""Share of the words and sentences that no training prompt has; the rest are words and sentences of training."""
_TYPING_ERRORS = 0.2


def free_caption(rng: np.random.Generator, scene: Scene, language: str, moving: bool = True) -> Caption:
    """Say in a language what a scene shows, as a stranger might: politely, in any order, with typing errors."""
    order = rng.permutation(len(scene.things))
    things: list[Said] = []
    for index in order:
        thing = scene.things[index]
        said = {name: getattr(thing, name) for name in ("colour", "shape", "size", "motion")}
        is_alone = len(order) == 1
        for name, kept in (
            ("colour", 0.93 if is_alone else 1.0),
            ("shape", 0.96),
            ("size", 0.5),
            ("motion", 0.94),
        ):
            if rng.random() > kept or (name == "motion" and not moving):
                del said[name]
        if not said.keys() & {"colour", "shape"}:
            said["colour"] = thing.colour
        things.append(said)
    background = scene.background if rng.random() < 0.65 else None
    made = Writer(rng, language, HELDOUT).write(things, background)
    if rng.random() < _TYPING_ERRORS:
        made = misspell(rng, made, 0.1)
    stated = dict(zip(order.tolist(), things, strict=True))
    text = made.text
    if rng.random() < 0.4:
        text = text[0].upper() + text[1:]
    return Caption(text, tuple(frozenset(stated[i]) for i in range(len(order))), background is not None)
