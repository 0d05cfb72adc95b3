"""Quality of generated sound: distances between sets, agreement with captions and pictures, levels."""

from __future__ import annotations
