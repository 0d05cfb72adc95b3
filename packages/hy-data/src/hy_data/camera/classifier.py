"""The class of a clip's camera motion, and how sure that is."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from hy_data.camera.classes import flipped, mirrored
from hy_data.camera.features import features, upright
from hy_data.camera.forest import Forest
from hy_data.camera.motion import Motion, measure_motion
from hy_data.frames import View

SHIPPED = Path(__file__).with_name("forest.safetensors")
"""Trained by `hy data camera train` on photographs in wheels."""

VIEW = View(256, fps=12, gray=True)
"""The frames of a clip that its camera motion is told from."""


class Classifier:
    """Tells the camera motion of clips by a forest, of the file `path`; errors as of `Forest.load`."""

    def __init__(self, path: Path | str = SHIPPED) -> None:
        self.forest = _loaded(Path(path))

    def classify(self, frames: np.ndarray) -> tuple[str, float]:
        """Return the most probable class and its probability, for gray pictures uint8 [T, H, W], T at least 2."""
        return self.classify_motion(measure_motion(frames))

    def classify_motion(self, motion: Motion) -> tuple[str, float]:
        """Return the most probable class of a motion and its probability."""
        shares = self.forest.probabilities(features(motion))
        best = int(shares.argmax())
        return in_mirror(self.forest.classes[best], upright(motion)), float(shares[best])


def in_mirror(name: str, mirrors: tuple[bool, bool]) -> str:
    """Return the class of a clip in the mirrors that `upright` names."""
    across, upside_down = mirrors
    name = mirrored(name) if across else name
    return flipped(name) if upside_down else name


@lru_cache(maxsize=4)
def _loaded(path: Path) -> Forest:
    return Forest.load(path)
