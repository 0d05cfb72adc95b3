"""Waveforms to latents and back: mel spectrograms, their VAE, the vocoder, and what trains them."""

from __future__ import annotations

from hy_audio.codec.codec import Codec, MelCodec
from hy_audio.codec.mel import LogMel, MelConfig
from hy_audio.codec.vae import MelVAE, MelVAEConfig
from hy_audio.codec.vocoder import Vocoder, VocoderConfig, load_vocoder, save_vocoder

__all__ = [
    "Codec",
    "LogMel",
    "MelCodec",
    "MelConfig",
    "MelVAE",
    "MelVAEConfig",
    "Vocoder",
    "VocoderConfig",
    "load_vocoder",
    "save_vocoder",
]
