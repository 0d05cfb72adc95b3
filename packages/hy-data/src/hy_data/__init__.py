"""Data for hy: from videos to training sets."""

from __future__ import annotations
