"""Training for hy: recipes for every stage."""

from __future__ import annotations
