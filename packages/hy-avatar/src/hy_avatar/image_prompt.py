"""HunyuanVideo-Avatar's image prompt: a LLaVA reads the reference picture, and its states replace the text's.

With "beside", as released, the prompt stands in the video template, followed by a line about the person's looks that
ends with the picture; the DiT reads the states of the prompt and all of the picture's, without the template's first 95.
With "instead", which the paper uses for expression and pose, the prompt is empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from hy_core.text import OFFICIAL
from hy_core.text.llava import LlavaEncoder, LlavaFolders, find_llava
from torch import Tensor

if TYPE_CHECKING:
    from hy_core.text import Templates
    from PIL import Image
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PLACES = tuple((name,) * 3 for name in ("llava_llama_image", "text_encoder", "llm"))
"""Folders of the LLaVA in a model's folder."""
PERSON = "\nThe person looks like<image>"
"""What follows the filled template; the released code knows no other subject than "person"."""


def find(folder: Path | None) -> LlavaFolders | None:
    """Return the LLaVA of a model's folder; None if it has none."""
    return find_llava(folder, PLACES)


class ImagePromptEncoder(LlavaEncoder):
    """The LLaVA with the avatar's template."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        processor: Any,
        templates: Templates = OFFICIAL,
    ) -> None:
        """Raise HyError for a tokenizer without exactly one picture token."""
        super().__init__(model, tokenizer, processor, templates)
        self.person = self.check_tokens(list(tokenizer(PERSON, add_special_tokens=False)["input_ids"]))

    def ids(self, prompt: str) -> list[int]:
        """Return the tokens of the filled template, the picture's last; a long prompt is cut before `PERSON`.

        The released code cuts behind it, which silently removes the picture.
        """
        ids = list(self.tokenizer(self.template.fill(prompt), verbose=False)["input_ids"])
        return ids[: self.budget - len(self.person)] + self.person

    def encode(self, prompt: str, picture: Image.Image) -> Tensor:
        """Return the states of a prompt, then of the picture: [n, D]. "" is the picture alone."""
        states, _, _ = self.hidden_states(self.ids(prompt), picture)
        return states[self.crop :].clone()


def encode(
    folders: LlavaFolders,
    prompts: Sequence[str],
    picture: Image.Image,
    device: torch.device | str,
    dtype: torch.dtype | None,
) -> list[Tensor]:
    """Return the states [n, D] of each prompt with the picture, on the CPU; loads the model and frees it after."""
    with ImagePromptEncoder.loaded(folders, device, dtype) as encoder:
        return [encoder.encode(prompt, picture).cpu() for prompt in prompts]
