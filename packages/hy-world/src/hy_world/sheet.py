"""Clips beside each other, for the eye."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from hy_world.report import Report

_CLIPS = 24
_STRIP = 6  # frames of each clip on a contact sheet
_GAP = 4
_WORDS = 28  # pixels for a caption of two lines


def contact_sheet(reports: Sequence[Report]) -> np.ndarray:
    """Return a picture of the first clips, uint8 [H, W, 3]: the caption and some frames of each."""
    return _columns([_strip(prompt, clip) for prompt, clip in _first(reports)], 2)


def mosaic(reports: Sequence[Report], columns: int = 6, enlarge: int = 2) -> np.ndarray:
    """Return the first clips side by side as one clip, uint8 [T, H, W, 3]."""
    clips = [clip.repeat(enlarge, axis=1).repeat(enlarge, axis=2) for _, clip in _first(reports)]
    return np.stack([_columns([clip[i] for clip in clips], columns) for i in range(len(clips[0]))])


def _first(reports: Sequence[Report]) -> list[tuple[str, np.ndarray]]:
    """Return the prompts and clips that are shown, as many of each group."""
    each = max(1, _CLIPS // len(reports))
    return [
        pair for report in reports for pair in zip(report.prompts[:each], report.clips[:each], strict=True)
    ]


def _strip(prompt: str, clip: np.ndarray) -> np.ndarray:
    frames = clip[np.unique(np.linspace(0, len(clip) - 1, _STRIP).round().astype(int))]
    gap = np.full((frames.shape[1], 1, 3), 255, np.uint8)
    row = np.concatenate([part for frame in frames for part in (frame, gap)], axis=1)
    words = Image.new("RGB", (row.shape[1], _WORDS), "white")
    lines = wrap(prompt, row.shape[1] * 4 // 23) or [""]  # a letter of this font is 5.75 pixels wide at most
    ImageDraw.Draw(words).multiline_text((1, 0), "\n".join(lines[:2]), "black", ImageFont.load_default(10))
    return np.concatenate([np.asarray(words), row])


def _columns(blocks: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Lay pictures of one size out in so many columns, left to right, on white."""
    height, width = (size + _GAP for size in blocks[0].shape[:2])
    rows = -(-len(blocks) // columns)
    sheet = np.full((rows * height + _GAP, min(columns, len(blocks)) * width + _GAP, 3), 255, np.uint8)
    for index, block in enumerate(blocks):
        top, left = index // columns * height + _GAP, index % columns * width + _GAP
        sheet[top : top + block.shape[0], left : left + block.shape[1]] = block
    return sheet
