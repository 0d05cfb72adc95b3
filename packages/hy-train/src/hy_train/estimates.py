"""What a video model makes of latents: never quite what an encoder gives, and what a decoder meets in a run."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from hy_core import models
from hy_core.condition import Condition
from hy_core.flow.guidance import Branch, Guided
from hy_core.flow.path import interpolate
from hy_core.flow.sampler import sample_euler
from hy_core.text import TextEncoder
from hy_core.weights import load_dit
from torch import Tensor


class Estimates:
    """Clips brought back from noise by a model's DiT, guided by their prompts as in a run.

    The way back begins at a time between `least` and `most` and takes `steps` steps. From earlier than that the clip
    would be another one, at other places, and no decoder could learn from it what its pixels are.
    """

    def __init__(self, model: str, least: float = 0.3, most: float = 0.85, steps: int = 5) -> None:
        source = models.find(model)
        self.dit = load_dit(source.dit, dtype=torch.float32).eval().requires_grad_(False)
        self.encoder = TextEncoder.load(source.folder, "cpu", torch.float32)
        self.cfg = source.defaults.cfg
        self.least, self.most, self.steps = least, most, steps

    @torch.no_grad()
    def __call__(self, latents: Tensor, prompts: Sequence[str], generator: torch.Generator) -> Tensor:
        """Estimates of latents [B, C, F, h, w] in the DiT's scale, and in the same places."""
        chance = torch.rand(1, generator=generator, device=generator.device).item()
        begin = self.least + (self.most - self.least) * chance
        noise = torch.randn(latents.shape, generator=generator, device=generator.device).to(latents)
        noisy = interpolate(latents, noise, torch.full((len(latents),), begin, device=latents.device))
        said, unsaid = (self._condition(words, latents) for words in (prompts, [""] * len(prompts)))
        guided = Guided(self.dit, unsaid, [Branch(said, self.cfg)], self.steps)
        return sample_euler(guided, noisy, torch.linspace(begin, 0.0, self.steps + 1)).to(latents)

    def _condition(self, prompts: Sequence[str], latents: Tensor) -> Condition:
        encoded = self.encoder.encode(list(prompts))
        return Condition(
            text=list(encoded.text),
            pooled=encoded.pooled,
            frames=latents.shape[2],
            size=tuple(latents.shape[3:]),
            patch=tuple(self.dit.config.patch[1:]),
        )
