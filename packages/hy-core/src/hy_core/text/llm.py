"""The decoder-only language model: states of an inner layer for the tokens of a prompt, without its template's.

Letters in shape comments: L tokens of one prompt, D width of the language model.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers import AutoModel

from hy_core.errors import HyError
from hy_core.text.pretrained import load_strictly, load_tokenizer, read_config
from hy_core.text.template import OFFICIAL, Templates

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

SKIP = 2  # the official models read hidden_states[-3]: the last two layers and the final norm never run
ROWS = 16  # prompts of one length that run together
# A multimodal checkpoint keeps its language model under one of these names, by the age of the file.
_INSIDE = {r"^language_model\.model\.": "", r"^model\.language_model\.": "", r"^language_model\.": ""}


class Llm:
    """A language model cut down to the layers whose states the DiT reads.

    `model` must already lack the layers after the one that is read, and return its states without a norm;
    `load` sees to both.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, templates: Templates = OFFICIAL
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.templates = templates
        self.crops = {True: templates.image.crop(tokenizer), False: templates.video.crop(tokenizer)}
        self.budget = templates.budget(tokenizer)

    @classmethod
    def load(
        cls,
        model: Path,
        tokenizer: Path,
        templates: Templates = OFFICIAL,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        skip: int = SKIP,
    ) -> Llm:
        """Read a folder as transformers writes it: a bare decoder, a causal LM, or a multimodal model that
        holds one.

        Only the layers up to `hidden_states[-(skip + 1)]` are read from the files. `dtype` None keeps the
        files' own.
        """
        return cls(load_decoder(model, skip, device, dtype), load_tokenizer(tokenizer), templates)

    def tokens(self, prompt: str, image_mode: bool = False) -> tuple[list[int], str]:
        """Return the token ids of the filled template, and the end of the prompt that was cut off ("" if none)."""
        template = self.templates.image if image_mode else self.templates.video
        text = template.fill(prompt)
        ids = self.tokenizer(text, truncation=True, max_length=self.budget)["input_ids"]
        check_ids(ids, self.model)
        if len(ids) < self.budget:
            return ids, ""
        every = self.tokenizer(text, verbose=False)["input_ids"]
        left_over = self.tokenizer.decode(every[self.budget :], skip_special_tokens=True)
        return ids, str(left_over).strip()

    @torch.no_grad()  # not inference mode: training uses the states too
    def encode(self, rows: list[list[int]], image_mode: bool = False) -> list[Tensor]:
        """Return each row's states [L_i, D] without those of the template before the prompt.

        Rows of one length run together and nothing is padded: a causal model doesn't attend to padding on the right, so
        this equals the official padded run.
        """
        states: dict[int, Tensor] = {}
        for chosen in same_length(rows):
            ids = torch.tensor([rows[i] for i in chosen], device=self.model.device)
            out = self.model(input_ids=ids, use_cache=False).last_hidden_state  # [b, L, D]
            # A copy, lest a view keep the template's states and the whole batch alive.
            states |= {i: row[self.crops[image_mode] :].clone() for i, row in zip(chosen, out, strict=True)}
        return [states[i] for i in range(len(rows))]


def check_ids(ids: list[int], model: PreTrainedModel) -> None:
    """Raise HyError for a token that the model has no embedding of, and for none at all."""
    weight = model.get_input_embeddings().weight
    assert isinstance(weight, Tensor)
    size = len(weight)
    if not ids or not 0 <= max(ids) < size:
        raise HyError(
            f"the tokenizer gives token {max(ids, default=None)}, and the model knows {size}",
            "use the tokenizer files that came with the model",
        )


def same_length(rows: list[list[int]]) -> list[tuple[int, ...]]:
    """Return the indices of the rows in groups of one length, at most `ROWS` each."""
    by_length: dict[int, list[int]] = {}
    for i, row in enumerate(rows):
        by_length.setdefault(len(row), []).append(i)
    return [tuple(same[i : i + ROWS]) for same in by_length.values() for i in range(0, len(same), ROWS)]


def shorten(config: PretrainedConfig, skip: int) -> PretrainedConfig:
    """Remove a decoder's last `skip` layers from its config, in place, so that they are neither built nor read."""
    layers = config.num_hidden_layers
    if not 0 < skip < layers:
        raise HyError(f"a language model of {layers} layers can't do without its last {skip}")
    config.num_hidden_layers = layers - skip
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[: layers - skip]
    return config


def load_decoder(
    path: Path, skip: int, device: torch.device | str, dtype: torch.dtype | None
) -> PreTrainedModel:
    """Load the decoder of a folder without its last `skip` layers, final norm, head and picture tower."""
    config = read_config(path)
    inside = config.get_text_config() if hasattr(config, "text_config") else None
    model = load_strictly(
        AutoModel,
        path,
        device,
        dtype,
        config=shorten(inside or config, skip),
        **({"key_mapping": _INSIDE} if inside else {}),
    )
    model.norm = nn.Identity()
    return model
