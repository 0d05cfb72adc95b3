"""Latents and text features on disk, so that no training step runs an encoder."""

from __future__ import annotations
