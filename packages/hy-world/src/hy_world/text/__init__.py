"""Pocket's text encoders: how they are trained and measured."""

from __future__ import annotations
