"""How the world's captions say a value: what the rewriter writes. Plain wordings that pocket was trained on."""

from __future__ import annotations

from typing import Any

from hy_world.scene import COLOURS, SHAPES, SIZES

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
