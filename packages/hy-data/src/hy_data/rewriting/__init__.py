"""Rewrite prompts with language models, as structured captions of `hy_data.captions`."""

from __future__ import annotations
