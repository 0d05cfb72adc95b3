"""Train the slot reader of pocket's rewriter on paraphrases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from hy_core.rewrite.reader import Labels, Reader, ReaderConfig, Reading, Rows, collate, features, interpret
from hy_core.rewrite.words import Lexicon
from hy_core.tables import from_table
from hy_core.training import Objective, Recipe, seeded
from torch import Tensor

from hy_world.rewriting import lexicon
from hy_world.rewriting.paraphrase import Paraphrase, sample
from hy_world.rewriting.saving import save

NO_LABEL = -100
_LENGTHS = 3


@dataclass(frozen=True)
class Options:
    """The recipe's `[options]`.

    `forget` is the share of prompts in which the reader sees only half of the lexicon's phrases, so that it learns to
    read unknown words by their letters and neighbours; `rows` prompts of each language are evaluated.
    """

    forget: float = 0.35
    rows: int = 250


@dataclass(frozen=True)
class Batch:
    """Paraphrases as rows with the labels of their tokens."""

    rows: Rows
    targets: Labels

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """Return the batch with its tensors on a device."""
        return Batch(self.rows.to(device), self.targets.to(device))


class RewriterObjective(Objective[Batch]):
    """Label the tokens of paraphrases with what they say; see `hy_core.rewrite.reader`."""

    model: Reader

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        super().__init__(recipe, folder)
        torch.manual_seed(recipe.seed)
        self.options = from_table(Options, recipe.options, "options")
        self.lexicon = Lexicon(lexicon.merged())
        self.config = ReaderConfig(lexicon.VALUES, tuple(self.lexicon.tags), **recipe.model)
        self.model = Reader(self.config)
        self.phrases = sorted(self.lexicon.phrases)

    def batch(self, step: int, rank: int = 0, ranks: int = 1) -> Batch:
        rng = np.random.default_rng(seeded(self.recipe.seed, 0, step, rank))
        numbers = rng.integers(len(lexicon.LANGUAGES), size=_LENGTHS * self.recipe.batch)
        made = [sample(rng, lexicon.LANGUAGES[number]) for number in numbers]
        # Prompts of about one length go together: less padding.
        made.sort(key=lambda one: len(one.text) * (3 if one.joiner == "" else 1))
        at = int(rng.integers(_LENGTHS)) * self.recipe.batch
        return self.encode(made[at : at + self.recipe.batch], rng)

    def encode(self, paraphrases: Sequence[Paraphrase], rng: np.random.Generator) -> Batch:
        """Return paraphrases as a batch; some of the lexicon's phrases are hidden from some rows."""
        prompts, pieces = [], []
        half = [
            frozenset(self.phrases[i] for i in np.flatnonzero(rng.random(len(self.phrases)) < 0.5))
            for _ in (0, 1)
        ]
        for one in paraphrases:
            words, labels = one.labelled()
            ignore = half[rng.integers(2)] if rng.random() < self.options.forget else frozenset()
            prompts.append(features(words, self.lexicon, self.config, ignore))
            pieces.append(labels)
        rows = collate(prompts)
        batch, length = rows.mask.shape
        index = {name: number for number, name in enumerate(self.config.values)}
        value = np.full((batch, length), NO_LABEL)
        owner, outside = np.zeros((batch, length, 2), np.float32), np.zeros((batch, length), np.float32)
        for row, labels in enumerate(pieces):
            for at, piece in enumerate(labels):
                value[row, at] = index[piece.value] if piece.value else len(index)
                outside[row, at] = piece.outside
                for thing in piece.owners if piece.value else ():
                    owner[row, at, thing] = 1
        targets = Labels(torch.from_numpy(value), torch.from_numpy(owner), torch.from_numpy(outside))
        return Batch(rows, targets)

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Return the mean loss of the three labels of all tokens, a scalar, and its parts to log."""
        out, targets, mask = self.model(batch.rows), batch.targets, batch.rows.mask
        value = F.cross_entropy(out.value.flatten(0, 1), targets.value.flatten(), ignore_index=NO_LABEL)
        owner = F.binary_cross_entropy_with_logits(out.owner[mask], targets.owner[mask])
        outside = F.binary_cross_entropy_with_logits(out.outside[mask], targets.outside[mask])
        return value + 2 * owner + outside, {
            "value": value.item(),
            "owner": owner.item(),
            "outside": outside.item(),
        }

    def evaluate(self) -> dict[str, float]:
        """Prompts in 100 with all slots right, by language, in training words and in held-out ones."""
        found = {}
        for language in lexicon.LANGUAGES:
            for name, heldout in (("train", 0.0), ("heldout", 0.6)):
                rng = np.random.default_rng((self.recipe.seed, 7, lexicon.LANGUAGES.index(language)))
                made = [sample(rng, language, heldout) for _ in range(self.options.rows)]
                read = self.read(made)
                right = sum(is_right(one, reading) for one, reading in zip(made, read, strict=True))
                found[f"{language}_{name}"] = round(100 * right / len(made), 1)
        return found

    @torch.no_grad()
    def read(self, paraphrases: Sequence[Paraphrase]) -> list[Reading]:
        """Read prompts as the rewriter does."""
        words = [one.labelled()[0] for one in paraphrases]
        labels = self.model(collate([features(one, self.lexicon, self.config) for one in words]))
        return [interpret(labels, row, one, self.config) for row, one in enumerate(words)]

    def export(self, folder: Path) -> None:
        save(self.model, self.lexicon, folder)


def is_right(paraphrase: Paraphrase, reading: Reading) -> bool:
    """Whether all that a prompt says was read, and nothing else."""
    things = [thing for thing in paraphrase.things if thing]
    return reading.things == things and reading.scene.get("background") == paraphrase.background
