"""The procedural world: clips of moving coloured shapes, with captions and ground truth."""

from __future__ import annotations
