"""What the world's objects and backgrounds can be."""

from __future__ import annotations

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (225, 30, 30),
    "orange": (250, 130, 0),
    "yellow": (255, 228, 0),
    "green": (20, 160, 50),
    "cyan": (0, 210, 220),
    "blue": (30, 60, 230),
    "purple": (135, 40, 190),
    "pink": (255, 120, 190),
}
SHAPES = ("circle", "square", "triangle", "star")
SIZES: dict[str, tuple[float, float]] = {  # range of the radius at the first frame
    "small": (7.6 / 64, 8.2 / 64),
    "large": (11.6 / 64, 12.4 / 64),
}
MOTIONS = ("right", "left", "up", "down", "bounce", "spin", "grow", "shrink", "still")
BACKGROUNDS = ("white", "black", "gray", "sky", "sunset", "checkerboard")
