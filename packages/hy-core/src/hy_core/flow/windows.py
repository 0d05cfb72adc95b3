"""Long videos in windows: each step denoises pieces that the network can take, and joins them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hy_core.errors import UsageError


@dataclass(frozen=True)
class Windows:
    """Windows of `length` latent frames, laid end to end and around the end of the video to its start.

    Each step moves them back by `shift` frames, so that no seam stays in one place; what two windows share is
    averaged. Source: Sonic's time-aware position shift fusion, as HunyuanVideo-Avatar runs it (33 and 10).
    A video that fits into one window is one window.
    """

    length: int = 33
    shift: int = 10

    def __post_init__(self) -> None:
        if self.length < 1 or self.shift < 0:
            raise UsageError(f"windows of {self.length} frames, moved by {self.shift}: not possible")

    def at(self, step: int, frames: int) -> list[list[int]]:
        """The latent frames of each window in a step (from 0); together they are all frames of the video."""
        if frames <= self.length:
            return [list(range(frames))]
        moved = step * self.shift % self.length
        starts = range(-moved, frames - moved, self.length)
        return [[frame % frames for frame in range(start, start + self.length)] for start in starts]


def counts(windows: Sequence[Sequence[int]], frames: int) -> list[int]:
    """In how many windows each frame is."""
    found = [0] * frames
    for window in windows:
        for frame in window:
            found[frame] += 1
    return found
