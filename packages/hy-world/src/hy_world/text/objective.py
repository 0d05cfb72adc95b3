"""Train pocket's text encoders: a small language model and a small CLIP, together."""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from hy_core.training import Objective, Recipe, seeded
from torch import Tensor

from hy_world.text import encoders as text


class TextObjective(Objective[text.Batch]):
    """Next words, and what a caption says; see `hy_world.text.encoders` for the models and the wordings."""

    def __init__(self, recipe: Recipe, folder: Path):
        super().__init__(recipe, folder)
        torch.manual_seed(recipe.seed)
        self.encoders = text.untrained()
        self.model = self.encoders

    def prepare(self) -> None:
        """Train the tokenizer: seconds."""
        self.tokenizer = text.make_tokenizer(np.random.default_rng(self.recipe.seed))
        self.prose = text.english()

    def batch(self, step: int, rank: int = 0, ranks: int = 1) -> text.Batch:
        rng = np.random.default_rng(seeded(self.recipe.seed, 0, step, rank))
        return text.draw(self.tokenizer, rng, self.recipe.batch, self.prose)

    def loss(self, batch: text.Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of token batches, a scalar tensor, and numbers to log."""
        return text.loss(self.encoders, batch), {}

    def evaluate(self) -> dict[str, float]:
        """Statements in 100 that a linear probe reads right, by encoder and wording, the mean of attributes."""
        with tempfile.TemporaryDirectory() as folder, torch.enable_grad():
            self.export(Path(folder))
            report = text.probe(folder, self.recipe.seed, rows=600)
        return {
            f"{encoder}_{wording}": round(mean(scores.values()), 2)
            for encoder in ("llm", "clip")
            for wording, scores in getattr(report, encoder).items()
        }

    def export(self, folder: Path) -> None:
        rng = np.random.default_rng(seeded(self.recipe.seed, 1))
        text.save(self.encoders, self.tokenizer, folder, text.draw(self.tokenizer, rng, 512))
