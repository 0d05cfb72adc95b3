"""Models that make a vector of a clip's frames."""

from __future__ import annotations
