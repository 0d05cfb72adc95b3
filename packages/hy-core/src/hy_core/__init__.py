"""hy_core: from a prompt to a video."""

from __future__ import annotations
