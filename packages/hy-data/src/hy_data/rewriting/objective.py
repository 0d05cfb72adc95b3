"""Fine-tune a causal language model as a rewriter: LoRA by peft on pairs of prompts and captions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from hy_core.data.split import is_heldout
from hy_core.errors import HyError, MissingError, UsageError
from hy_core.tables import from_table
from hy_core.text.pretrained import load_strictly, load_tokenizer
from hy_core.training import Objective, Recipe, seeded
from torch import Tensor

from hy_data.rewriting import instructions
from hy_data.rewriting.pairs import Pair, read_pairs

_IGNORED = -100  # of labels: not part of the loss


@dataclass(frozen=True)
class RewriterData:
    """`pairs`: a file of `hy data pairs`; `heldout`: the share of pairs that is measured and not trained on."""

    pairs: str = ""
    heldout: float = 0.1


@dataclass(frozen=True)
class RewriterOptions:
    """LoRA's `rank`, `alpha` and `targets` (names of linear layers, or "all-linear"); `most_tokens` of an example."""

    rank: int = 16
    alpha: int = 32
    targets: tuple[str, ...] = ("all-linear",)
    most_tokens: int = 2048


class Tokens(NamedTuple):
    """B examples padded to L tokens: `ids`, `mask` and `labels`, int64 [B, L]; labels of the request are ignored."""

    ids: Tensor
    mask: Tensor
    labels: Tensor


class RewriterTuning(Objective[Tokens]):
    """Next tokens of the caption, given the instructions of the mode normal and the prompt.

    `init_from` is the folder of a causal language model with a chat template. The export is such a folder again, with
    the adapter merged, for `hy generate --rewrite=FOLDER`.
    """

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        super().__init__(recipe, folder)
        self.data = from_table(RewriterData, recipe.data, "data")
        self.options = from_table(RewriterOptions, recipe.options, "options")
        try:
            from peft import LoraConfig, get_peft_model
        except ImportError:
            raise MissingError(
                "peft is needed to fine-tune a language model", 'pip install "hy-data[rewriter]"'
            ) from None
        if not recipe.init_from or not self.data.pairs:
            raise UsageError(
                "init_from and data.pairs name a language model's folder and a file of pairs",
                "--set init_from=FOLDER --set data.pairs=pairs.jsonl",
            )
        from transformers import AutoModelForCausalLM

        base = Path(recipe.init_from).expanduser()
        self.tokenizer: Any = load_tokenizer(base)
        if not getattr(self.tokenizer, "chat_template", None):
            raise MissingError(
                f"{base} has no chat template", "it is chat_template.jinja, beside the weights"
            )
        torch.manual_seed(recipe.seed)
        network: Any = load_strictly(AutoModelForCausalLM, base, torch.device("cpu"), torch.float32)
        targets = self.options.targets
        config = LoraConfig(
            r=self.options.rank,
            lora_alpha=self.options.alpha,
            target_modules="all-linear" if targets == ("all-linear",) else list(targets),
            task_type="CAUSAL_LM",
        )
        network.requires_grad_(True)
        self.model = get_peft_model(network, config)
        self.trained = {name for name, one in self.model.named_parameters() if one.requires_grad}
        pairs = read_pairs(Path(self.data.pairs).expanduser())
        held = [is_heldout(pair.prompt, self.data.heldout) for pair in pairs]
        self.pairs = [pair for pair, out in zip(pairs, held, strict=True) if not out]
        self.held = [pair for pair, out in zip(pairs, held, strict=True) if out]
        if not self.pairs:
            raise HyError(f"{self.data.pairs}: all pairs are held out", "lower data.heldout")

    def batch(self, step: int, rank: int = 0, ranks: int = 1) -> Tokens:
        rng = np.random.default_rng(seeded(self.recipe.seed, 0, step, rank))
        return self._tokens(
            [self.pairs[int(i)] for i in rng.integers(len(self.pairs), size=self.recipe.batch)]
        )

    def loss(self, batch: Tokens, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Return the mean cross entropy of the captions' tokens, a scalar tensor."""
        out = self.model(input_ids=batch.ids, attention_mask=batch.mask, labels=batch.labels)
        found: Tensor = out.loss
        return found, {}

    def evaluate(self, rows: int = 32) -> dict[str, float]:
        """Return the loss on held-out pairs (on training pairs without any)."""
        pairs, name = (self.held, "heldout_loss") if self.held else (self.pairs, "loss")
        device = next(self.model.parameters()).device
        losses = []
        for start in range(0, min(len(pairs), rows), self.recipe.batch):
            batch = Tokens(
                *(one.to(device) for one in self._tokens(pairs[start : start + self.recipe.batch]))
            )
            losses.append(self.loss(batch, torch.Generator())[0].item())
        return {name: float(np.mean(losses))}

    def export(self, folder: Path) -> None:
        """Write the model with the adapter merged, and its tokenizer; training may go on afterwards."""
        import copy

        folder.mkdir(parents=True, exist_ok=True)
        merged: Any = copy.deepcopy(self.model)
        merged.merge_and_unload().save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def _tokens(self, pairs: list[Pair]) -> Tokens:
        rows = [self._example(pair) for pair in pairs]
        longest = max(len(ids) for ids, _ in rows)
        pad = self.tokenizer.pad_token_id
        pad = self.tokenizer.eos_token_id if pad is None else pad
        ids = [row + [pad or 0] * (longest - len(row)) for row, _ in rows]
        mask = [[1] * len(row) + [0] * (longest - len(row)) for row, _ in rows]
        labels = [[_IGNORED] * start + row[start:] + [_IGNORED] * (longest - len(row)) for row, start in rows]
        return Tokens(torch.tensor(ids), torch.tensor(mask), torch.tensor(labels))

    def _example(self, pair: Pair) -> tuple[list[int], int]:
        """The tokens of request and answer, and where the answer starts. HyError for one that is too long."""
        messages = [
            {"role": "system", "content": instructions.system("normal")},
            {"role": "user", "content": instructions.request(pair.prompt)},
        ]
        asked: str = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        answer = json.dumps(pair.caption.to_json(), ensure_ascii=False)
        start: list[int] = self.tokenizer(asked, add_special_tokens=False)["input_ids"]
        rest: list[int] = self.tokenizer(answer, add_special_tokens=False)["input_ids"]
        if self.tokenizer.eos_token_id is not None:
            rest = [*rest, self.tokenizer.eos_token_id]
        if len(start) + len(rest) > self.options.most_tokens:
            raise HyError(
                f"a pair has {len(start) + len(rest)} tokens: {pair.prompt[:60]!r}",
                f"options.most_tokens is {self.options.most_tokens}",
            )
        return [*start, *rest], len(start)
