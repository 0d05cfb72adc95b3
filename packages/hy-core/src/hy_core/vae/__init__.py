"""The causal 3D VAE."""

from __future__ import annotations

from hy_core.vae.config import VAEConfig
from hy_core.vae.model import VAE, Posterior

__all__ = ["VAE", "Posterior", "VAEConfig"]
