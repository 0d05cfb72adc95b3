"""Logos by edges that stay in place; static cameras are unknown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from core.timed_clips import timed_clip
from hy_core.data import ClipRecord
from hy_data.stages.overlay import Overlay
from hy_data.still_edges import find_still_edges
from PIL import Image, ImageDraw, ImageFont

HEIGHT, WIDTH = 144, 256
LOGO = (196, 10, 244, 26)


def passing(frames: int = 12, step: int = 6, logo: int = 0) -> np.ndarray:
    """A wide random scene that passes by `step` pixels a frame, under a logo of this opacity, uint8 [T, H, W, 3]."""
    rng = np.random.default_rng(0)
    scene = Image.fromarray(rng.integers(30, 220, (12, 40), dtype=np.uint8)).resize(
        (600, HEIGHT), Image.Resampling.BICUBIC
    )
    made = []
    for index in range(frames):
        picture = scene.crop((step * index, 0, step * index + WIDTH, HEIGHT)).convert("RGBA")
        layer = Image.new("RGBA", picture.size)
        ImageDraw.Draw(layer).text(LOGO[:2], "HYTV", (255, 255, 255, logo), ImageFont.load_default(20))
        made.append(np.asarray(Image.alpha_composite(picture, layer).convert("RGB")))
    return np.stack(made)


@pytest.mark.parametrize("opacity", [255, 160])
def test_a_logo_is_found_where_it_is(tmp_path: Path, opacity: int) -> None:
    clip = timed_clip(tmp_path / "a.mp4", passing(logo=opacity), [index / 30 for index in range(12)])
    (record,) = Overlay(height=144).run(ClipRecord(clip))
    assert record.results["overlay"] == "logo"
    left, top, right, bottom = np.asarray(record.results["overlay_box"]) * [WIDTH, HEIGHT, WIDTH, HEIGHT]
    assert abs(left - LOGO[0]) < 8 and right > LOGO[2] - 8 and top < LOGO[3] and bottom > LOGO[1] + 4
    assert 0 < float(record.results["overlay_area"]) < 0.05  # type: ignore[arg-type]


def test_a_passing_scene_has_no_logo(tmp_path: Path) -> None:
    clip = timed_clip(tmp_path / "a.mp4", passing(), [index / 30 for index in range(12)])
    (record,) = Overlay(height=144).run(ClipRecord(clip))
    assert record.results == {"overlay": "none", "overlay_area": 0}


def test_a_static_camera_is_unknown_and_text_that_stays_decides(tmp_path: Path) -> None:
    clip = timed_clip(tmp_path / "a.mp4", passing(step=0, logo=255), [index / 30 for index in range(12)])
    (record,) = Overlay(height=144).run(ClipRecord(clip))
    assert record.results == {"overlay": "unknown", "overlay_area": None}
    (record,) = Overlay(height=144).run(ClipRecord(clip, results={"text_lasting": 0.02}))
    assert record.results["overlay"] == "unknown" and record.results["overlay_area"] == 0.02


def test_a_border_is_no_logo_and_two_frames_tell_nothing(tmp_path: Path) -> None:
    frames = passing()
    frames[:, :20], frames[:, -20:] = 0, 0
    found = find_still_edges(frames.mean(-1).astype(np.uint8))
    assert not found.is_static and len(found.boxes) == 0
    clip = timed_clip(tmp_path / "a.mp4", passing(2, logo=255), [0, 1 / 30])
    assert list(Overlay().run(ClipRecord(clip)))[0].results["overlay"] == "unknown"
