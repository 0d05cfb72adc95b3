"""Structured captions: their schema, back-ends that write them, and the texts that training draws from them."""

from __future__ import annotations

from hy_data.captions.render import RenderOptions, render
from hy_data.captions.schema import FIELDS, StructuredCaption

__all__ = ["FIELDS", "RenderOptions", "StructuredCaption", "render"]
