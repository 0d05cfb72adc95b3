"""What a run costs before it starts: tokens, operations, memory, and seconds on this machine."""

from __future__ import annotations

from hy_core.estimate.cost import Estimate, check_memory, decoder_bytes, duration, estimate, scaled
from hy_core.estimate.count import (
    decode_flops,
    decoder_shapes,
    dit_parameters,
    forward_flops,
    vae_parameters,
)
from hy_core.estimate.measure import seconds

__all__ = [
    "Estimate",
    "check_memory",
    "decode_flops",
    "decoder_bytes",
    "decoder_shapes",
    "dit_parameters",
    "duration",
    "estimate",
    "forward_flops",
    "scaled",
    "seconds",
    "vae_parameters",
]
