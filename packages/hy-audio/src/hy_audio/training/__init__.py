"""What `hy train` makes sound models with: the mel VAE, the vocoder and the tri-stream DiT."""

from __future__ import annotations
