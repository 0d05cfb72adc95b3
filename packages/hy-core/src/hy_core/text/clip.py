"""The pooled sentence vector: the text half of CLIP."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import CLIPTextModel

from hy_core.text.llm import check_ids, same_length
from hy_core.text.pretrained import load_strictly, load_tokenizer, read_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Clip:
    """CLIP's text model: one vector per prompt, the final-norm state of the end token."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.budget = model.config.max_position_embeddings  # 77, start and end tokens included

    @classmethod
    def load(
        cls,
        model: Path,
        tokenizer: Path,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> Clip:
        """Read a folder with a CLIP text model, alone or in a whole CLIP; `dtype` None keeps the files'."""
        config = read_config(model)
        config = getattr(config, "text_config", config)
        return cls(
            load_strictly(CLIPTextModel, model, device, dtype, config=config), load_tokenizer(tokenizer)
        )

    def tokens(self, prompt: str) -> tuple[list[int], str]:
        """Return the token ids of a prompt and the end of it that didn't fit ("" when all did)."""
        ids = self.tokenizer(prompt, truncation=True, max_length=self.budget)["input_ids"]
        check_ids(ids, self.model)
        if len(ids) < self.budget:
            return ids, ""
        every = self.tokenizer(prompt, add_special_tokens=False, verbose=False)["input_ids"]
        kept = self.budget - self.tokenizer.num_special_tokens_to_add()
        return ids, str(self.tokenizer.decode(every[kept:], skip_special_tokens=True)).strip()

    @torch.no_grad()  # not inference mode: training uses the states too
    def encode(self, rows: list[list[int]]) -> Tensor:
        """Return the pooled vectors [B, D]; rows of one length run together, so that nothing is padded."""
        pooled: dict[int, Tensor] = {}
        for chosen in same_length(rows):
            ids = torch.tensor([rows[i] for i in chosen], device=self.model.device)
            pooled |= dict(zip(chosen, self.model(input_ids=ids).pooler_output, strict=True))
        return torch.stack([pooled[i] for i in range(len(rows))])
