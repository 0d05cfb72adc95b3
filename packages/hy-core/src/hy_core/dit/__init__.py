"""The diffusion transformer, its configuration, and the ports where plugins attach."""

from __future__ import annotations

from hy_core.dit.config import DiTConfig
from hy_core.dit.layers import embedded_guidance
from hy_core.dit.model import DiT, Prepared, Vectors
from hy_core.dit.ports import Additive, CrossAttend, Port

__all__ = [
    "Additive",
    "CrossAttend",
    "DiT",
    "DiTConfig",
    "Port",
    "Prepared",
    "Vectors",
    "embedded_guidance",
]
