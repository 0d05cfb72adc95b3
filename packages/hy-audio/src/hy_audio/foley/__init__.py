"""The released Foley model: its network, its audio VAE and its extractor for timing, from the official checkpoints."""

from __future__ import annotations

from hy_audio.foley.config import FoleyConfig
from hy_audio.foley.dac import DACVAE, DACConfig
from hy_audio.foley.model import Foley
from hy_audio.foley.synchformer import Synchformer, SynchformerConfig
from hy_audio.foley.weights import load_dac, load_foley, load_synchformer

__all__ = [
    "DACConfig",
    "DACVAE",
    "Foley",
    "FoleyConfig",
    "Synchformer",
    "SynchformerConfig",
    "load_dac",
    "load_foley",
    "load_synchformer",
]
