"""The paper's audio network, and sampling that works for every audio network."""

from __future__ import annotations
