"""Data for hy: clips, captions and the procedural world."""

from __future__ import annotations
