"""The multimodal language model reads the reference picture: its states take the place of the prompt's.

Two layouts. "beside" is the released model's: the prompt in the video template, then a line that says what the person
looks like, which ends with the picture; what the DiT gets are the states of the prompt and of all of the picture's
tokens, without the template's first 95. "instead" is the paper's for expression and pose driving: the same with no
words, because words can't say what the picture shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from hy_core.errors import HyError, MissingError
from hy_core.text import OFFICIAL
from hy_core.text.llm import SKIP, shorten
from hy_core.text.pretrained import load_strictly, load_tokenizer, read_config
from torch import Tensor, nn

if TYPE_CHECKING:
    from hy_core.text import Templates
    from PIL import Image
    from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerBase

FOLDERS = ("llava_llama_image", "text_encoder", "llm")
"""Where a model's folder may have a multimodal model."""
LOOKS = "\nThe person looks like<image>"
"""What the released model puts behind the template; the name is always "person" there."""


def find(folder: Path | None) -> Path | None:
    """The multimodal model in a model's folder; None if it has none, and so can't see pictures."""
    for name in FOLDERS if folder else ():
        path = folder / name
        whole = (path / "config.json").is_file() and (path / "preprocessor_config.json").is_file()
        if whole and read_config(path).model_type == "llava":
            return path
    return None


class Looker:
    """A LLaVA cut down to the layers whose states are read, with its tokenizer and picture processor."""

    def __init__(
        self,
        model: LlavaForConditionalGeneration,
        tokenizer: PreTrainedTokenizerBase,
        processor: Any,
        templates: Templates = OFFICIAL,
    ) -> None:
        self.model, self.tokenizer, self.processor = model.model, tokenizer, processor
        self.template, self.token = templates.video, model.config.image_token_id
        self.crop = templates.video.crop(tokenizer)
        self.budget = templates.budget(tokenizer)
        self.looks = tokenizer(LOOKS, add_special_tokens=False)["input_ids"]
        if self.looks.count(self.token) != 1:
            raise HyError(
                f"the tokenizer makes {self.looks.count(self.token)} picture tokens of <image>, not one",
                "use the tokenizer files that came with the checkpoint",
            )

    @classmethod
    def load(
        cls, folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
    ) -> Looker:
        """Load what `find` found; MissingError for what isn't there. Nothing is fetched, no code is run."""
        from transformers import LlavaForConditionalGeneration
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        config = read_config(folder)
        shorten(config.text_config, SKIP)
        model = load_strictly(LlavaForConditionalGeneration, folder, device, dtype, config=config)
        model.model.language_model.norm = nn.Identity()
        try:
            processor = CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError) as error:
            line = " ".join(str(error).split())[:200]
            raise MissingError(f"{folder} holds no picture processor: {line}") from error
        return cls(model, load_tokenizer(folder), processor)

    def ids(self, prompt: str) -> list[int]:
        """The tokens that are read, the last of them the picture's; a prompt that is too long is cut before it.

        The released code cuts behind it, and so loses the picture in silence.
        """
        ids = self.tokenizer(self.template.fill(prompt), verbose=False)["input_ids"]
        return ids[: self.budget - len(self.looks)] + self.looks

    @torch.no_grad()
    def read(self, prompt: str, picture: Image.Image) -> Tensor:
        """States of a prompt ("" for the picture alone) and then of the picture: [n, D]."""
        ids = torch.tensor(self.ids(prompt), device=self.model.device)
        pixels = self.processor(picture.convert("RGB"), return_tensors="pt")["pixel_values"]
        tower = next(self.model.vision_tower.parameters())
        seen = self.model.get_image_features(pixel_values=pixels.to(tower), return_dict=True).pooler_output[0]
        words = self.model.get_input_embeddings()(ids)
        at = int((ids == self.token).nonzero()[0])
        joined = torch.cat([words[:at], seen.to(words), words[at + 1 :]])
        states = self.model.language_model(inputs_embeds=joined[None], use_cache=False).last_hidden_state[0]
        return states[self.crop :].clone()


def read(
    folder: Path,
    prompts: Sequence[str],
    picture: Image.Image,
    mode: Literal["beside", "instead"],
    device: torch.device | str,
    dtype: torch.dtype | None,
) -> list[Tensor]:
    """The states [n, D] for each prompt with the picture; the model is loaded for this and freed after."""
    looker = Looker.load(folder, device, dtype)
    states = [looker.read(prompt if mode == "beside" else "", picture).cpu() for prompt in prompts]
    del looker
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return states
