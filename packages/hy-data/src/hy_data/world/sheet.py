"""Clips beside each other, for the eye."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from hy_core.errors import HyError
from PIL import Image, ImageDraw, ImageFont

from hy_data.world.scene import FPS

if TYPE_CHECKING:
    from hy_data.world.evaluate import Report

_CLIPS = 24
_STRIP = 6  # frames of each clip on a contact sheet
_GAP = 4
_LINE = 14  # pixels for a caption


def contact_sheet_of(reports: Sequence[Report], path: Path) -> None:
    """Write a picture of the first clips: caption and some frames. HyError if it can't be written."""
    blocks = [_strip(prompt, clip) for prompt, clip in _first(reports)]
    sheet = _columns(blocks, 2)
    _save(Image.fromarray(sheet), path)


def write_gif(reports: Sequence[Report], path: Path, columns: int = 6, enlarge: int = 2) -> None:
    """Write the first clips side by side as one GIF that repeats. HyError if it can't be written."""
    clips = [np.repeat(np.repeat(clip, enlarge, 1), enlarge, 2) for _, clip in _first(reports)]
    pictures = [Image.fromarray(_columns([clip[i] for clip in clips], columns)) for i in range(len(clips[0]))]
    _save(pictures[0], path, save_all=True, append_images=pictures[1:], duration=round(1000 / FPS), loop=0)


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
    words = Image.new("RGB", (row.shape[1], _LINE), "white")
    font = ImageFont.load_default(10)
    pen = ImageDraw.Draw(words)
    while prompt and pen.textlength(prompt, font) > row.shape[1]:
        prompt = prompt[:-1]
    pen.text((1, 1), prompt, "black", font)
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


def _save(picture: Image.Image, path: Path, **options: object) -> None:
    try:
        picture.save(path, **options)
    except (OSError, ValueError) as error:
        path.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or error
        hint = "give a file name that ends in .png or .gif, in an existing folder"
        raise HyError(f"{path}: {reason}", hint) from None
