"""Keys of a set's cached tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hy_core.data.keys import cache_key, encoders_fingerprint, text_key

if TYPE_CHECKING:
    from hy_data.source import SetClip

__all__ = ["encoders_fingerprint", "latent_key", "text_key"]


def latent_key(clip: SetClip, vae: str, dtype: str) -> str:
    """Return the key of a clip's latents: of its id (content and span), crop, moment, shape, rate, VAE and dtype."""
    return cache_key(["latents", clip.id, clip.crop, clip.time, clip.shape, clip.rate, vae, dtype])
