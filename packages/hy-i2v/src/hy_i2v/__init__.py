"""Image to video for hy: pictures, keyframes and clips as input."""

from __future__ import annotations
