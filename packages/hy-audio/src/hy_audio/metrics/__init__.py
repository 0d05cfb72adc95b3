"""How good made sound is: distances between sets, agreement with words and pictures, levels."""

from __future__ import annotations
