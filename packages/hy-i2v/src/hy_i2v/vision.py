"""The multimodal language model reads picture and prompt together; its states are the text that the DiT reads.

The template has one `<image>` token, which is expanded to as many as the picture has features (576 officially: ids
5 to 580 of 934 then). What the DiT gets is every fourth state of the picture (every second where the picture also goes
in by channels), then those of the prompt without the template before it, and without the four tokens that open the
answer: 144 or 288, then at most 252 (HunyuanVideo-I2V; core facts, section 3.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from hy_core.errors import HyError, MissingError
from hy_core.text import OFFICIAL_I2V, Templates
from hy_core.text.llm import SKIP, shorten
from hy_core.text.pretrained import load_strictly, load_tokenizer, read_config
from torch import Tensor, nn

if TYPE_CHECKING:
    from PIL import Image
    from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerBase

# Where a model's folder has the multimodal model, its tokenizer and its picture processor: official, diffusers.
LAYOUTS = (
    ("text_encoder_i2v", "text_encoder_i2v", "text_encoder_i2v"),
    ("text_encoder", "tokenizer", "image_processor"),
    ("text_encoder", "text_encoder", "text_encoder"),
)
HELD_STRIDE, BESIDE_STRIDE = 4, 2
"""Of how many states of the picture one is kept: where the frame is held, and where it goes in by channels."""


@dataclass(frozen=True)
class Place:
    """The folders of a multimodal model: its weights, its tokenizer, its picture processor."""

    model: Path
    tokenizer: Path
    processor: Path


def find(folder: Path | None) -> Place | None:
    """The multimodal model in a model's folder; None if it has none, and so can't see pictures."""
    if folder is None:
        return None
    for names in LAYOUTS:
        place = Place(*(folder / name for name in names))
        if (place.processor / "preprocessor_config.json").is_file() and (
            place.model / "config.json"
        ).is_file():
            if read_config(place.model).model_type == "llava":
                return place
    return None


class Reader:
    """A LLaVA cut down to the layers whose states are read, with its tokenizer and picture processor."""

    def __init__(
        self,
        model: LlavaForConditionalGeneration,
        tokenizer: PreTrainedTokenizerBase,
        processor: object,
        templates: Templates = OFFICIAL_I2V,
    ) -> None:
        self.model = model.model
        self.tokenizer, self.processor, self.template = tokenizer, processor, templates.video
        self.token = model.config.image_token_id
        self.crop = self.template.crop(tokenizer)
        self.budget = templates.budget(tokenizer)
        self.after = common_end(*(self.ids(prompt) for prompt in ("a", "1")))

    @classmethod
    def load(cls, place: Place, device: torch.device | str, dtype: torch.dtype | None) -> Reader:
        """Load what `find` found; MissingError for tensors that aren't there. Nothing is fetched, no code is run."""
        from transformers import LlavaForConditionalGeneration

        config = read_config(place.model)
        shorten(config.text_config, SKIP)
        model = load_strictly(LlavaForConditionalGeneration, place.model, device, dtype, config=config)
        model.model.language_model.norm = nn.Identity()
        return cls(model, load_tokenizer(place.tokenizer), load_processor(place.processor))

    def ids(self, prompt: str) -> list[int]:
        """The tokens of the filled template, one of them the picture's."""
        text = self.template.fill(prompt)
        return self.tokenizer(text, truncation=True, max_length=self.budget, verbose=False)["input_ids"]

    @torch.no_grad()
    def read(self, prompt: str, picture: Image.Image, stride: int) -> Tensor:
        """States of the picture, every `stride`-th, then of the prompt: [n, D]."""
        ids = self.ids(prompt)
        if ids.count(self.token) != 1:
            raise HyError(
                f"the tokenizer makes {ids.count(self.token)} picture tokens of the template, not one",
                "use the tokenizer files that came with the checkpoint",
            )
        features = self.features(picture)
        count, at = len(features), ids.index(self.token)
        text = torch.tensor([ids], device=self.model.device)
        embedded = self.model.get_input_embeddings()(text)[0]
        joined = torch.cat([embedded[:at], features.to(embedded), embedded[at + 1 :]])
        states = self.model.language_model(inputs_embeds=joined[None], use_cache=False).last_hidden_state[0]
        return torch.cat([states[at : at + count : stride], states[self.kept(ids, count)]])

    def features(self, picture: Image.Image) -> Tensor:
        """What the picture tower and the projector make of a picture: [n, D]."""
        pixels = self.processor(picture.convert("RGB"), return_tensors="pt")["pixel_values"]
        tower = next(self.model.vision_tower.parameters())
        found = self.model.get_image_features(pixel_values=pixels.to(tower), return_dict=True)
        return found.pooler_output[0]

    def kept(self, ids: Sequence[int], count: int) -> list[int]:
        """Positions of the prompt's states, when the picture's token is expanded to `count`.

        Of the template's end all but its last token goes: the end of the turn and the head of the answer. Of a prompt
        that was cut there is no such end, and the official code takes as many of its own tokens away.
        """
        whole = list(ids[-len(self.after) :]) == self.after
        end = len(ids) - (1 if whole else 0)
        gone = range(end - (len(self.after) - 1), end)
        return [position + count - 1 for position in range(self.crop, len(ids)) if position not in gone]


def read(
    place: Place,
    asked: Sequence[tuple[str, Image.Image]],
    stride: int,
    device: torch.device | str,
    dtype: torch.dtype | None,
) -> list[Tensor]:
    """The states [n, D] of each prompt with its picture; the model is loaded for this and freed after."""
    reader = Reader.load(place, device, dtype)
    states = [reader.read(prompt, picture, stride).cpu() for prompt, picture in asked]
    del reader
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return states


def load_processor(path: Path) -> object:
    """The picture processor of a folder, in its version without torchvision."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    try:
        return CLIPImageProcessorPil.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError) as error:
        line = " ".join(str(error).split())[:200]
        raise MissingError(f"{path} holds no picture processor: {line}") from error


def common_end(one: list[int], other: list[int]) -> list[int]:
    """What two lists of tokens have in common at their ends."""
    same = 0
    while same < min(len(one), len(other)) and one[-1 - same] == other[-1 - same]:
        same += 1
    return one[len(one) - same :]
