"""HunyuanVideo-I2V's image prompt: a LLaVA reads the picture with the prompt, and its states replace the text's.

The template has one `<image>` token, which becomes as many states as the picture has features (officially 576, at
positions 5 to 580 of 934). The DiT reads every fourth of them, every second where the picture is in the input channels
too, then the prompt's states without the template before it and without the first four tokens of the answer after it:
144 or 288 states, then at most 252 (HunyuanVideo-I2V; core facts, section 3.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from hy_core.text import OFFICIAL_I2V, Templates
from hy_core.text.llava import LlavaEncoder, LlavaFolders, find_llava
from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PLACES = (
    ("text_encoder_i2v", "text_encoder_i2v", "text_encoder_i2v"),
    ("text_encoder", "tokenizer", "image_processor"),
    ("text_encoder", "text_encoder", "text_encoder"),
)
"""Folders of the LLaVA in a model's folder: the official one's, then diffusers'."""
FIXED_FRAME_STRIDE, CHANNEL_STRIDE = 4, 2
"""Of so many of the picture's states one is read: with a fixed first frame, and with the picture in input channels."""


def find(folder: Path | None) -> LlavaFolders | None:
    """Return the LLaVA of a model's folder; None if it has none."""
    return find_llava(folder, PLACES)


class ImagePromptEncoder(LlavaEncoder):
    """The LLaVA with the image-to-video template."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        processor: Any,
        templates: Templates = OFFICIAL_I2V,
    ) -> None:
        super().__init__(model, tokenizer, processor, templates)
        self.suffix = common_suffix(*(self.ids(prompt) for prompt in ("a", "1")))

    def ids(self, prompt: str) -> list[int]:
        """Return the tokens of the filled template, cut to the budget."""
        text = self.template.fill(prompt)
        ids = self.tokenizer(text, truncation=True, max_length=self.budget, verbose=False)["input_ids"]
        return list(ids)

    def encode(self, prompt: str, picture: Image.Image, stride: int) -> Tensor:
        """Return the picture's states, every `stride`-th, then the prompt's: [n, D]."""
        ids = self.ids(prompt)
        states, start, count = self.hidden_states(ids, picture)
        return torch.cat([states[start : start + count : stride], states[self.text_positions(ids, count)]])

    def text_positions(self, ids: Sequence[int], count: int) -> list[int]:
        """Return the positions of the prompt's states when the picture's token has become `count` states.

        Of the template's end only the last token stays. A prompt that was cut has no such end; the official code then
        leaves out as many of the prompt's own tokens.
        """
        is_whole = list(ids[-len(self.suffix) :]) == self.suffix
        end = len(ids) - (1 if is_whole else 0)
        left_out = range(end - (len(self.suffix) - 1), end)
        return [position + count - 1 for position in range(self.crop, len(ids)) if position not in left_out]


def encode(
    folders: LlavaFolders,
    pairs: Sequence[tuple[str, Image.Image]],
    stride: int,
    device: torch.device | str,
    dtype: torch.dtype | None,
) -> list[Tensor]:
    """Return the states [n, D] of each (prompt, picture), on the CPU; the model is loaded for this and freed after."""
    with ImagePromptEncoder.loaded(folders, device, dtype) as encoder:
        return [encoder.encode(prompt, picture, stride).cpu() for prompt, picture in pairs]


def common_suffix(one: list[int], other: list[int]) -> list[int]:
    """Return the longest end that two lists of tokens share."""
    same = 0
    while same < min(len(one), len(other)) and one[-1 - same] == other[-1 - same]:
        same += 1
    return one[len(one) - same :]
