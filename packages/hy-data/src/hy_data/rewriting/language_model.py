"""Rewrite with a causal language model of transformers in a folder, loaded from that folder alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hy_core.device import pick_device, pick_dtype
from hy_core.errors import MissingError
from hy_core.text.pretrained import load_strictly, load_tokenizer

from hy_data.rewriting.base import ChatRewriter


class LanguageModelRewriter(ChatRewriter):
    """Asks a model that AutoModelForCausalLM loads, through its chat template.

    `MissingError` for a folder without tokenizer, weights or chat template. Equal prompts get equal
    answers.
    """

    def __init__(self, where: str, max_tokens: int = 512, device: str = "auto", dtype: str = "auto") -> None:
        self.folder, self.max_tokens, self.device, self.dtype = (
            Path(where).expanduser(),
            max_tokens,
            device,
            dtype,
        )
        self.name = str(where)
        self._loaded: tuple[Any, Any] | None = None

    def load(self) -> tuple[Any, Any]:
        """Return model and tokenizer, loaded once."""
        if self._loaded is None:
            from transformers import AutoModelForCausalLM

            tokenizer = load_tokenizer(self.folder)
            if not getattr(tokenizer, "chat_template", None):
                raise MissingError(
                    f"{self.folder} has no chat template", "it is chat_template.jinja, beside the weights"
                )
            device = pick_device(self.device)
            model = load_strictly(AutoModelForCausalLM, self.folder, device, pick_dtype(self.dtype, device))
            self._loaded = model, tokenizer
        return self._loaded

    def chat(self, system: str, user: str) -> str:
        """Return the most probable answer to a system and a user message."""
        import torch

        model, tokenizer = self.load()
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        inputs = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        ).to(model.device)
        length = inputs["input_ids"].shape[1]
        with torch.inference_mode():
            out = model.generate(
                **inputs,
                max_new_tokens=self.max_tokens,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id
                if tokenizer.pad_token_id is not None
                else tokenizer.eos_token_id,
            )
        return str(tokenizer.decode(out[0, length:], skip_special_tokens=True))
