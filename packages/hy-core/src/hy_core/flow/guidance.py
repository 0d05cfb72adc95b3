"""Guidance: several conditions, one velocity, v = v0 + sum of s_i * (v_i - v0)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from hy_core.condition import Condition, merge, mergeable, window
from hy_core.flow.cache import StepCache, TokenMemory
from hy_core.flow.denoise import Denoiser
from hy_core.flow.windows import Windows, counts

if TYPE_CHECKING:
    from hy_core.dit import DiT

Scale = float | Callable[[int, int], float]


@dataclass(frozen=True)
class Branch:
    """A condition and its guidance scale: a number, or a function of (step from 0, steps)."""

    cond: Condition
    scale: Scale

    def at(self, step: int, steps: int) -> float:
        """The scale in one step."""
        return float(self.scale(step, steps) if callable(self.scale) else self.scale)


def combine(base: Tensor | None, terms: Sequence[tuple[float, Tensor]]) -> Tensor:
    """base + sum of scale * (v - base); without a base, the plain sum of scale * v.

    With one term this is classifier-free guidance, v_neg + s * (v_pos - v_neg).

    All velocities have the same shape, [B, C, F, h, w].
    """
    if base is None:
        scale, v = terms[0]
        total = v if scale == 1 else scale * v
        return sum((scale * v for scale, v in terms[1:]), total)
    return sum((scale * (v - base) for scale, v in terms), base)


class Guided:
    """The guided velocity of a run: called as a sampler's `velocity(x, sigma, step)`.

    `base` is v0 (the negative prompt, or the only condition there is). A condition whose weight is 0 in a
    step is not run in it: scale 1 costs one pass, and a base that two branches cancel out costs none, so a plugin
    can change the unconditional half of guidance during a run. The same Condition in several branches runs once.
    `batched` runs the branches of a step as rows of one batch where that is possible, else one after another.
    `windows` denoise a long video piece by piece, `cache` is the step cache, `attention` the attention kernel.
    """

    def __init__(
        self,
        dit: DiT,
        base: Condition,
        branches: Sequence[Branch] = (),
        steps: int = 1,
        batched: bool = False,
        windows: Windows | None = None,
        cache: StepCache | None = None,
        attention: str = "auto",
    ) -> None:
        self.attention = attention
        self.dit, self.base, self.branches = dit, base, tuple(branches)
        self.steps, self.batched, self.windows, self.cache = steps, batched, windows, cache
        self._denoisers: dict[tuple[int, ...], Denoiser] = {}
        self._memories: dict[tuple[int, ...], TokenMemory] = {}

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
        """Return the guided velocity of latents x [B, C, F, h, w] at time sigma, a scalar tensor."""
        parts = list(self.parts(x, sigma, step))
        if len(parts) == 1:
            return parts[0][1]
        total = torch.zeros_like(x)
        for frames, velocity in parts:
            total[:, :, frames] += velocity
        shared = counts([frames for frames, _ in parts], x.shape[2])
        return total / torch.tensor(shared, device=x.device)[:, None, None]

    def parts(self, x: Tensor, sigma: Tensor, step: int) -> Iterator[tuple[list[int], Tensor]]:
        """The guided velocity of each window [B, C, f, h, w], with its latent frames; one if there are none."""
        weights, every = self.weights(step), list(range(x.shape[2]))
        for frames in self.windows.at(step, x.shape[2]) if self.windows else [every]:
            part = x if frames == every else x[:, :, frames]
            velocities = self._run(part, sigma, [cond for _, cond in weights], step, frames)
            terms = [(scale, v) for (scale, _), v in zip(weights, velocities, strict=True)]
            with_base = bool(weights) and weights[0][1] is self.base
            yield frames, combine(terms[0][1], terms[1:]) if with_base else combine(None, terms)

    def _run(
        self, x: Tensor, sigma: Tensor, conds: list[Condition], step: int, frames: list[int]
    ) -> list[Tensor]:
        if self.batched and len(conds) > 1 and mergeable(conds):
            rows = torch.cat([x] * len(conds))
            return list(self._denoise(conds, rows, sigma, step, frames).chunk(len(conds)))
        return [self._denoise([cond], x, sigma, step, frames) for cond in conds]

    def _denoise(
        self, conds: list[Condition], x: Tensor, sigma: Tensor, step: int, frames: list[int]
    ) -> Tensor:
        key = tuple(id(cond) for cond in conds)
        denoiser = self._denoiser(key, conds, frames)
        if self.cache is None:
            return denoiser(x, sigma)
        memory = self._memories.setdefault(key, TokenMemory(self.cache))
        cached = memory.recall(step, self.steps, frames)
        is_whole = cached.video is None
        velocity = denoiser(x, sigma, cached)
        if is_whole:
            memory.store(cached, frames)
        return velocity

    def _denoiser(self, key: tuple[int, ...], conds: list[Condition], frames: list[int]) -> Denoiser:
        if frames != list(range(conds[0].frames)):  # windows move, so each is prepared again
            return Denoiser(self.dit, window(merge(conds), frames), self.attention)
        if key not in self._denoisers:
            self._denoisers[key] = Denoiser(self.dit, merge(conds), self.attention)
        return self._denoisers[key]
