"""LLaVA, a multimodal language model that reads a picture together with a prompt.

    folders = find_llava(model_folder, [("text_encoder", "tokenizer", "image_processor")])
    encoder = LlavaEncoder.load(folders, "cpu", torch.float32)
    states, start, count = encoder.hidden_states(ids, picture)

How a prompt is filled in and which states the DiT reads differs from model to model: a subclass defines both.
Letters in shapes: L tokens of the prompt, one of them the picture's; P features of the picture; D width of the
language model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from hy_core.errors import HyError, MissingError
from hy_core.text.llm import SKIP, shorten
from hy_core.text.pretrained import load_strictly, load_tokenizer, read_config
from hy_core.text.template import Templates

if TYPE_CHECKING:
    from PIL import Image
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class LlavaFolders:
    """The folders of a LLaVA: its weights, its tokenizer, its picture processor. They may be one folder."""

    model: Path
    tokenizer: Path
    processor: Path


def find_llava(folder: Path | None, places: Iterable[tuple[str, str, str]]) -> LlavaFolders | None:
    """Return the LLaVA of a model's folder, None if it has none.

    `places` names folders inside it, in the order of `LlavaFolders`; the first place with a LLaVA is taken.
    """
    if folder is None:
        return None
    for names in places:
        found = LlavaFolders(*(folder / name for name in names))
        configs = found.model / "config.json", found.processor / "preprocessor_config.json"
        if all(file.is_file() for file in configs) and read_config(found.model).model_type == "llava":
            return found
    return None


class LlavaEncoder:
    """A LLaVA cut down to the layers whose states are read, with its tokenizer and picture processor."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, processor: Any, templates: Templates
    ) -> None:
        """`model`: a `LlavaForConditionalGeneration` whose language model returns the states without a norm."""
        self.model: Any = model.model
        self.tokenizer: Any = tokenizer
        self.processor, self.template = processor, templates.video
        self.image_token: int = model.config.image_token_id
        self.crop, self.budget = self.template.crop(tokenizer), templates.budget(tokenizer)

    @classmethod
    def load(cls, folders: LlavaFolders, device: torch.device | str, dtype: torch.dtype | None) -> Self:
        """Load from these folders alone, without running code of theirs; `dtype` None is the files' own.

        Raises MissingError for a missing file or tensor and HyError for a damaged one.
        """
        from transformers import LlavaForConditionalGeneration

        config = read_config(folders.model)
        shorten(config.text_config, SKIP)
        model: Any = load_strictly(LlavaForConditionalGeneration, folders.model, device, dtype, config=config)
        model.model.language_model.norm = nn.Identity()
        return cls(model, load_tokenizer(folders.tokenizer), load_processor(folders.processor))  # type: ignore[call-arg]

    @classmethod
    @contextmanager
    def loaded(
        cls, folders: LlavaFolders, device: torch.device | str, dtype: torch.dtype | None
    ) -> Iterator[Self]:
        """Load the encoder for the time of a `with` block, and give its memory back."""
        yield (encoder := cls.load(folders, device, dtype))
        encoder.model = None
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    def check_tokens(self, ids: list[int]) -> list[int]:
        """Return the tokens of a prompt; HyError unless exactly one of them is the picture's."""
        if (count := ids.count(self.image_token)) != 1:
            raise HyError(
                f"the tokenizer makes {count} picture tokens of the template, not one",
                "use the tokenizer files that came with the checkpoint",
            )
        return ids

    @torch.no_grad()
    def image_features(self, picture: Image.Image) -> Tensor:
        """Return the projected features of a picture of any size and mode: [P, D]."""
        pixels = self.processor(picture.convert("RGB"), return_tensors="pt")["pixel_values"]
        tower = next(self.model.vision_tower.parameters())
        found = self.model.get_image_features(pixel_values=pixels.to(tower), return_dict=True)
        features: Tensor = found.pooler_output[0]
        return features

    @torch.no_grad()
    def hidden_states(self, ids: list[int], picture: Image.Image) -> tuple[Tensor, int, int]:
        """Return the states [L - 1 + P, D] of a prompt, and where the picture's begin and how many they are (P).

        `ids` are the prompt's L tokens; the picture's one is replaced by the P features. The states are those that go
        into the third layer from the end: `hidden_states[-3]` of the whole model.
        """
        at = self.check_tokens(ids).index(self.image_token)
        features = self.image_features(picture)
        text = self.model.get_input_embeddings()(torch.tensor([ids], device=self.model.device))[0]
        embedded = torch.cat([text[:at], features.to(text), text[at + 1 :]])
        states = self.model.language_model(inputs_embeds=embedded[None], use_cache=False).last_hidden_state[0]
        return states, at, len(features)


def load_processor(folder: Path) -> Any:
    """Return the CLIP picture processor of a folder, in its version without torchvision; MissingError without one."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    try:
        return CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        line = " ".join(str(error).split())[:200]
        raise MissingError(f"{folder} holds no picture processor: {line}") from error
