"""Sound for hy: every video gets its soundtrack."""

from __future__ import annotations
