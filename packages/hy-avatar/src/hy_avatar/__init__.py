"""Avatars for hy: speech, expression and pose drive a character."""

from __future__ import annotations
