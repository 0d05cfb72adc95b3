"""Flow matching: the path from data to noise, its schedule, guidance, and the samplers that walk it back."""

from __future__ import annotations
