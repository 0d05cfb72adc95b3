"""Image to video for hy: a picture, keyframes or a clip go on as a video."""

from __future__ import annotations
