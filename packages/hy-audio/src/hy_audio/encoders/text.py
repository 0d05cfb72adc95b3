"""Prompts to token states: T5 for the paper's model, a decoder for small ones, CLAP's text half for Foley."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from hy_core.errors import HyError
from hy_core.text.llm import Llm, same_length
from hy_core.text.pretrained import load_strictly, load_tokenizer, read_config
from hy_core.text.template import OFFICIAL, Templates
from torch import Tensor, nn

from hy_audio.encoders.loaded import Loaded

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Tokens that the released Foley reads at most.
CLAP_TOKENS = 77
#: Tokens of a sound's description that our models read.
T5_TOKENS = 120


class T5Encoder(Loaded):
    """T5's encoder: each prompt's states, without padding."""

    def __init__(
        self, network: nn.Module, tokenizer: PreTrainedTokenizerBase, budget: int = T5_TOKENS
    ) -> None:
        super().__init__(network)
        self.tokenizer, self.budget = tokenizer, budget

    @classmethod
    def load(
        cls, folder: Path | str, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
    ) -> T5Encoder:
        """Read a folder with a T5 (encoder alone or whole) and its tokenizer; `dtype` None keeps the files'."""
        from transformers import T5EncoderModel

        folder = Path(folder)
        return cls(load_strictly(T5EncoderModel, folder, device, dtype), load_tokenizer(folder))

    @property
    def width(self) -> int:
        """Numbers of a state."""
        return int(self.config.d_model)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> list[Tensor]:
        """States [L_i,D] of each prompt; an empty prompt has none, [0,D], which leaves the condition out."""
        rows = [
            self.tokenizer(prompt, truncation=True, max_length=self.budget)["input_ids"] if prompt else []
            for prompt in prompts
        ]
        states = [torch.zeros(0, self.width, device=self.device, dtype=self.dtype) for _ in rows]
        for chosen in same_length(rows):
            if not rows[chosen[0]]:
                continue
            ids = torch.tensor([rows[i] for i in chosen], device=self.device)
            found = self.network(input_ids=ids).last_hidden_state
            for i, row in zip(chosen, found, strict=True):
                states[i] = row.clone()
        return states


class LlmEncoder(Loaded):
    """A decoder as the core reads it, with its template: each prompt's states, without padding."""

    def __init__(self, llm: Llm) -> None:
        super().__init__(llm.model)
        self.llm: Llm | None = llm

    @classmethod
    def load(
        cls, folder: Path | str, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
    ) -> LlmEncoder:
        """Read a folder with a decoder, its tokenizer and perhaps templates.json; `dtype` None keeps the files'."""
        folder = Path(folder)
        own = folder / "templates.json"
        templates = Templates.load(own) if own.is_file() else OFFICIAL
        return cls(Llm.load(folder, folder, templates, device, dtype))

    @property
    def width(self) -> int:
        """Numbers of a state."""
        return int(self.config.hidden_size)

    def encode(self, prompts: Sequence[str]) -> list[Tensor]:
        """States [L_i,D] of each prompt; an empty prompt has none, [0,D], which leaves the condition out."""
        if self.llm is None:
            raise HyError("the LlmEncoder was freed", "load it again to encode more")
        rows = [self.llm.tokens(prompt)[0] for prompt in prompts if prompt]
        found = iter(self.llm.encode(rows))
        none = torch.zeros(0, self.width, device=self.device, dtype=self.dtype)
        return [next(found) if prompt else none for prompt in prompts]

    def free(self) -> None:
        """Let the network go and hand its memory back to the system or the device."""
        self.llm = None
        super().free()


class ClapEncoder(Loaded):
    """CLAP's text half, as the released Foley uses it: states of all tokens, padding included.

    The Foley network has no text mask, so padded states are part of what it reads; a prompt and its negative have
    to be encoded together.
    """

    def __init__(self, network: nn.Module, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(network)
        self.tokenizer = tokenizer

    @classmethod
    def load(
        cls, folder: Path | str, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
    ) -> ClapEncoder:
        """Read a folder with a CLAP, whole or its text half alone, and its tokenizer."""
        from transformers import ClapTextModelWithProjection

        folder = Path(folder)
        config = read_config(folder)
        if whole := getattr(config, "text_config", None):
            whole.projection_dim = config.projection_dim
        network = load_strictly(ClapTextModelWithProjection, folder, device, dtype, config=whole or config)
        return cls(network, load_tokenizer(folder))

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Tensor:
        """States [B,L,D] of prompts padded to the longest of them, of at most 77 tokens."""
        most = self.config.max_position_embeddings - 2  # RoBERTa counts positions from 2 on
        read = self.tokenizer(
            list(prompts), padding=True, truncation=True, max_length=most, return_tensors="pt"
        ).to(self.device)
        found = self.network(input_ids=read["input_ids"], attention_mask=read["attention_mask"])
        return found.last_hidden_state[:, :CLAP_TOKENS]
