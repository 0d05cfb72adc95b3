"""The causal 3D VAE."""

from __future__ import annotations

from hy_core.vae.config import VAEConfig
from hy_core.vae.model import VAE, Posterior
from hy_core.vae.tiling import Axis, Tiling

__all__ = ["VAE", "Axis", "Posterior", "Tiling", "VAEConfig"]
