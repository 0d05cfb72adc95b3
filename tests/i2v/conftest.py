"""Pictures and clips to start from."""

from __future__ import annotations

import numpy as np
import pytest
from hy_core import media
from PIL import Image, ImageDraw


@pytest.fixture
def ball(tmp_path):
    """A red ball on grey, 90 x 70."""
    picture = Image.new("RGB", (90, 70), (200, 205, 210))
    ImageDraw.Draw(picture).ellipse((20, 20, 50, 50), fill=(220, 20, 20))
    picture.save(tmp_path / "ball.png")
    return tmp_path / "ball.png"


@pytest.fixture
def blue(tmp_path):
    """A blue picture."""
    Image.new("RGB", (64, 64), (20, 20, 220)).save(tmp_path / "blue.png")
    return tmp_path / "blue.png"


@pytest.fixture
def clip(tmp_path):
    """A clip of 12 frames at 8 fps, 64 x 48, that gets brighter: frame i is 20 i."""
    frames = (
        np.repeat(np.arange(12, dtype=np.uint8)[:, None, None, None] * 20, 48, 1).repeat(64, 2).repeat(3, 3)
    )
    media.write(tmp_path / "clip.mp4", frames, 8.0)
    return tmp_path / "clip.mp4"
