"""The 14 classes of camera motion of the HunyuanVideo paper (section 3.1)."""

from __future__ import annotations

CLASSES = (
    "zoom in",
    "zoom out",
    "pan up",
    "pan down",
    "pan left",
    "pan right",
    "tilt up",
    "tilt down",
    "tilt left",
    "tilt right",
    "around left",
    "around right",
    "static shot",
    "handheld shot",
)
"""As the paper names them. A pan translates the camera, a tilt rotates it, around moves it on a circle about the
subject, which stays in the middle; left, right, up and down are where the camera moves or turns to (in a pan to the
right and in a tilt to the right the picture moves to the left). A zoom changes the focal length or moves the camera
forwards or backwards."""

UNSURE = "unsure"
"""The answer below a stated confidence."""


def mirrored(name: str) -> str:
    """Return the class of the same clip seen in a mirror: left and right exchanged."""
    kind, _, way = name.partition(" ")
    return f"{kind} {({'left': 'right', 'right': 'left'}).get(way, way)}"


def flipped(name: str) -> str:
    """Return the class of the same clip upside down, in a mirror that exchanges up and down."""
    kind, _, way = name.partition(" ")
    return f"{kind} {({'up': 'down', 'down': 'up'}).get(way, way)}"
