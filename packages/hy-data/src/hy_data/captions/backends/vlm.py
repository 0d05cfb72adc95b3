"""Captions by a vision-language model of transformers in a folder, loaded from that folder alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from hy_core.data import ClipRecord
from hy_core.device import pick_device, pick_dtype
from hy_core.errors import HyError, MissingError
from hy_core.text.pretrained import load_strictly
from PIL import Image

from hy_data.captions.backends.base import Captioner, ask_until_valid
from hy_data.captions.repair import Repaired


class VisionLanguageModel(Captioner):
    """Ask a model that transformers' AutoModelForImageTextToText and AutoProcessor load (LLaVA, Qwen2-VL, ...).

    The folder needs weights, config.json, the processor's files and a chat template. `MissingError` for a folder that
    lacks any of them or a processor that needs a package that isn't installed.
    """

    def __init__(
        self,
        folder: Path | str,
        frames: int = 8,
        height: int = 360,
        tries: int = 3,
        max_tokens: int = 1024,
        device: str = "auto",
        dtype: str = "auto",
    ) -> None:
        self.folder, self.frames, self.height, self.tries = Path(folder).expanduser(), frames, height, tries
        self.max_tokens, self.device, self.dtype = max_tokens, device, dtype
        self._loaded: tuple[Any, Any] | None = None

    def setup(self) -> None:
        if self._loaded is not None:
            return
        from transformers import AutoModelForImageTextToText, AutoProcessor

        device = pick_device(self.device)
        try:
            processor = AutoProcessor.from_pretrained(
                self.folder, local_files_only=True, trust_remote_code=False
            )
        except Exception as error:  # the classes vary with the processor
            line = " ".join(str(error).split())[:160]
            raise MissingError(
                f"{self.folder} holds no processor that transformers can load: {line}"
            ) from error
        if not getattr(processor, "chat_template", None):
            raise MissingError(
                f"{self.folder} has no chat template", "it is chat_template.jinja or chat_template.json"
            )
        model = load_strictly(
            AutoModelForImageTextToText, self.folder, device, pick_dtype(self.dtype, device)
        )
        self._loaded = model, processor

    def caption(self, record: ClipRecord, frames: np.ndarray, seconds: float) -> Repaired:
        pictures = [Image.fromarray(frame) for frame in frames]
        return ask_until_valid(lambda prompt: self.ask(prompt, pictures), len(pictures), seconds, self.tries)

    @torch.inference_mode()
    def ask(self, prompt: str, pictures: list[Image.Image]) -> str:
        """Return the model's most probable answer to a prompt with pictures."""
        self.setup()
        assert self._loaded is not None
        model, processor = self._loaded
        content = [*({"type": "image", "image": one} for one in pictures), {"type": "text", "text": prompt}]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        ).to(model.device)
        for name, value in inputs.items():
            if torch.is_tensor(value) and value.is_floating_point():
                inputs[name] = value.to(model.dtype)
        tokenizer = processor.tokenizer
        try:
            out = model.generate(
                **inputs,
                max_new_tokens=self.max_tokens,
                do_sample=False,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id
                if tokenizer.pad_token_id is not None
                else tokenizer.eos_token_id,
            )
        except ValueError as error:  # picture tokens and pictures don't match
            raise HyError(
                f"{self.folder}: the model can't read its own processor's input: {error}"
            ) from error
        answer: str = tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return answer

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": None}
