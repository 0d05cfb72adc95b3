"""Weights: files to tensors, foreign names to ours, tensors to where they run; and back to files."""

from __future__ import annotations

from hy_core.weights.files import load_state
from hy_core.weights.load import load_dit, load_owned, load_port_weights, load_vae
from hy_core.weights.save import save_dit, save_port_weights, save_safetensors

__all__ = [
    "load_dit",
    "load_owned",
    "load_port_weights",
    "load_state",
    "load_vae",
    "save_dit",
    "save_port_weights",
    "save_safetensors",
]
