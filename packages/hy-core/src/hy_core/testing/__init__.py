"""The author's kit: pytest fixtures for people who write plugins."""

from __future__ import annotations
