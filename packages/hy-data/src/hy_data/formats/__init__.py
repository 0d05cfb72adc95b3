"""Data sets of other tools as clip records, and sets as files that other tools read."""

from __future__ import annotations
