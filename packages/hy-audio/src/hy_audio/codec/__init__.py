"""Waveforms to latents and back: mel spectrograms, their VAE, the vocoder, and what trains them."""

from __future__ import annotations
