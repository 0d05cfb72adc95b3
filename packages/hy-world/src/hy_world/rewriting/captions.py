"""How the world's captions say a value: what the rewriter writes. Plain wordings that pocket was trained on."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from hy_world.attributes import COLOURS, SHAPES, SIZES
from hy_world.captions import caption
from hy_world.scene import sample_scene

SCHEMA: dict[str, Any] = {
    "texts": {
        "colour": {name: name for name in COLOURS},
        "shape": {name: name for name in SHAPES},
        "size": {name: name for name in SIZES},
        "motion": {
            "right": "moves right",
            "left": "moves left",
            "up": "moves up",
            "down": "moves down",
            "bounce": "bounces",
            "spin": "spins",
            "grow": "grows",
            "shrink": "shrinks",
            "still": "stays still",
        },
        "background": {
            "white": "on a white background",
            "black": "on a black background",
            "gray": "on a gray background",
            "sky": "in the sky",
            "sunset": "at sunset",
            "checkerboard": "on a checkerboard",
        },
    },
    "thing": ["size", "colour", "shape"],
    "nameless": {"shape": "shape"},
    "motion": "motion",
    "scene": ["background"],
    "join": "and",
    "impossible": [{"shape": "circle", "motion": "spin"}],
}
"""`thing` is the order of a noun phrase, `nameless` the word for what isn't said, `scene` what ends the caption;
`impossible` are pairs that the world doesn't show."""


def schema() -> dict[str, Any]:
    """Return the texts with the vocabulary of the world's captions, by which a prompt in other words is noticed."""
    rng = np.random.default_rng(0)
    texts = [caption(rng, sample_scene(rng)).text.lower() for _ in range(3000)]
    return {**SCHEMA, "vocabulary": sorted({word for text in texts for word in re.findall("[a-z]+", text)})}
