"""Rewrite prompts: from any wording and language to the captions that a model was trained on."""

from __future__ import annotations

from hy_core.rewrite.rewriter import MODES, Draft, Rewrite, Rewriter, rewrite

__all__ = ["MODES", "Draft", "Rewrite", "Rewriter", "rewrite"]
