"""Memory of a training step, counted before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hy_core.estimate import dit_parameters, scaled

if TYPE_CHECKING:
    from hy_core.dit.config import DiTConfig
    from hy_core.vae.config import VAEConfig

# Multiples of the width that a block keeps for its backward pass, per token: its input and normalised inputs, q, k and
# v before and after their norms and rotation, the attention's output, and the MLP before and after its activation.
_KEPT = 34
_TRAINED = 20  # bytes: the value, its gradient, two moments of AdamW and the average, all float32


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of a training step: frozen and trained weights with their states, and activations."""

    weights: int
    trained: int
    activations: int
    tokens: int
    rows: int

    @property
    def total(self) -> int:
        """All of it, in bytes."""
        return self.weights + self.trained + self.activations

    def line(self, free: int) -> str:
        """Say it in a line."""
        return (
            f"memory     about {scaled(self.total)}B of {scaled(free)}B free: weights {scaled(self.weights)}B, "
            f"trained {scaled(self.trained)}B, activations {scaled(self.activations)}B "
            f"({self.rows} x {self.tokens:,} tokens)"
        )


def memory(
    dit: DiTConfig,
    vae: VAEConfig,
    shape: tuple[int, int, int],
    rows: int,
    trained: int,
    whole: bool,
    bytes_each: int,
    checkpointing: bool,
) -> MemoryPlan:
    """Return the memory for `rows` clips of a shape (frames, height, width) with `trained` parameters.

    `whole` says that these are all of the DiT's; `bytes_each` are those of a frozen weight and of an activation.
    """
    f, h, w = vae.latent_size(*shape)
    t, y, x = dit.patch
    tokens = (f // t) * (h // y) * (w // x) + 256
    blocks = dit.depth_double + dit.depth_single
    each = rows * tokens * dit.width * bytes_each
    activations = each * (blocks + _KEPT) if checkpointing else each * blocks * _KEPT
    weights = 0 if whole else dit_parameters(dit) * bytes_each
    return MemoryPlan(weights, trained * _TRAINED, activations, tokens, rows)
