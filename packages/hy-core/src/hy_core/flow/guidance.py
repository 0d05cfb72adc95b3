"""Guidance: several conditions, one velocity, v = v0 + sum of s_i * (v_i - v0)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hy_core.condition import Condition, merge, mergeable
from hy_core.flow.denoise import Denoiser

if TYPE_CHECKING:
    from hy_core.dit import DiT

Scale = float | Callable[[int, int], float]


@dataclass(frozen=True)
class Branch:
    """A condition and how strongly to go its way: a number, or a function of (step from 0, steps)."""

    cond: Condition
    scale: Scale

    def at(self, step: int, steps: int) -> float:
        """The scale in one step."""
        return float(self.scale(step, steps) if callable(self.scale) else self.scale)


def combine(base: Tensor | None, terms: Sequence[tuple[float, Tensor]]) -> Tensor:
    """base + sum of scale * (v - base); without a base, the plain sum of scale * v.

    With one term this is classifier-free guidance, v_neg + s * (v_pos - v_neg).
    """
    if base is None:
        scale, v = terms[0]
        total = v if scale == 1 else scale * v
        return sum((scale * v for scale, v in terms[1:]), total)
    return sum((scale * (v - base) for scale, v in terms), base)


class Guided:
    """The guided velocity of a run: called as a sampler's `velocity(x, sigma, step)`.

    `base` is v0 (the negative prompt, or the only condition there is). A condition whose weight is 0 in a
    step is not run in it: scale 1 costs one pass, and a base that two branches cancel out costs none, which
    is how a guidance that changes its unconditional half on the way is said. The same Condition in several
    branches runs once. `batched` runs the branches of a step as rows of one batch where that is possible,
    else one after another.
    """

    def __init__(
        self,
        dit: DiT,
        base: Condition,
        branches: Sequence[Branch] = (),
        steps: int = 1,
        batched: bool = False,
    ) -> None:
        self.dit, self.base, self.branches = dit, base, tuple(branches)
        self.steps, self.batched = steps, batched
        self._denoisers: dict[tuple[int, ...], Denoiser] = {}

    def weights(self, step: int) -> list[tuple[float, Condition]]:
        """The conditions to run in a step, with scales; the base first, with what the others leave of 1."""
        terms: dict[int, tuple[float, Condition]] = {}
        rest = 1.0
        for branch in self.branches:
            scale = branch.at(step, self.steps)
            rest -= scale
            if branch.cond is self.base:  # it would add scale * (v0 - v0)
                rest += scale
                continue
            terms[id(branch.cond)] = (terms.get(id(branch.cond), (0.0, None))[0] + scale, branch.cond)
        live = [(scale, cond) for scale, cond in terms.values() if scale != 0]
        return [(rest, self.base), *live] if abs(rest) > 1e-9 else live

    def __call__(self, x: Tensor, sigma: Tensor, step: int) -> Tensor:
        weights = self.weights(step)
        velocities = self._run(x, sigma, [cond for _, cond in weights])
        terms = [(scale, v) for (scale, _), v in zip(weights, velocities, strict=True)]
        if weights and weights[0][1] is self.base:
            return combine(terms[0][1], terms[1:])
        return combine(None, terms)

    def _run(self, x: Tensor, sigma: Tensor, conds: list[Condition]) -> list[Tensor]:
        if self.batched and len(conds) > 1 and mergeable(conds):
            return list(self._denoiser(conds)(torch.cat([x] * len(conds)), sigma).chunk(len(conds)))
        return [self._denoiser([cond])(x, sigma) for cond in conds]

    def _denoiser(self, conds: list[Condition]) -> Denoiser:
        key = tuple(id(cond) for cond in conds)
        if key not in self._denoisers:
            self._denoisers[key] = Denoiser(self.dit, merge(conds))
        return self._denoisers[key]
