"""The released scheduler's other solvers, as velocities that the core's Euler sampler walks along.

A step of such a solver is x + dt * (a mean of velocities along the step). In the release the network sees the
step's own time at every stage, and "kutta-4" adds its third stage onto the second instead of the start; both are
kept, for they are what its numbers come from. The release's own loop can only run "euler".
"""

from __future__ import annotations

from hy_core.errors import UsageError
from hy_core.flow.sampler import Velocity
from torch import Tensor

from hy_audio.codec.losses import total

#: For each solver: what each later stage stands on, as shares of the earlier velocities; and the mean's weights.
TABLEAUS: dict[str, tuple[list[list[float]], list[float]]] = {
    "euler": ([], [1.0]),
    "heun-2": ([[1.0]], [0.5, 0.5]),
    "midpoint-2": ([[0.5]], [0.0, 1.0]),
    "kutta-4": ([[0.5], [0.5, 0.5], [0.5, 0.5, 1.0]], [1 / 6, 1 / 3, 1 / 3, 1 / 6]),
}


def released_solver(name: str, velocity: Velocity, sigmas: Tensor) -> Velocity:
    """The velocity of a whole step of that solver over `sigmas` [steps + 1], for `sample_euler`."""
    if name not in TABLEAUS:
        raise UsageError(f"unknown solver {name!r}", hint=f"choose from: {', '.join(TABLEAUS)}")
    stages, weights = TABLEAUS[name]

    def mean(x: Tensor, sigma: Tensor, step: int) -> Tensor:
        dt = (sigmas[step + 1] - sigmas[step]).to(x)
        found = [velocity(x, sigma, step)]
        for shares in stages:
            moved = total(share * v for share, v in zip(shares, found, strict=True))
            found.append(velocity(x + dt * moved, sigma, step))
        return total(weight * v for weight, v in zip(weights, found, strict=True))

    return mean
