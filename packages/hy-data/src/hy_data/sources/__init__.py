"""Where clips come from: folders, lists, addresses."""

from __future__ import annotations
