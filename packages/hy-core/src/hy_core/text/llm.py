"""The decoder-only language model: template and prompt in, states of an inner layer out, template cut off.

Letters in shape comments: L tokens of one prompt, D width of the language model.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

from hy_core.errors import HyError, MissingError
from hy_core.text.template import OFFICIAL, Templates

if TYPE_CHECKING:
    from collections.abc import Iterator

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
        """Return the ids of the filled template, and the end of the prompt that didn't fit (or "")."""
        template = self.templates.image if image_mode else self.templates.video
        text = template.fill(prompt)
        ids = self.tokenizer(text, truncation=True, max_length=self.budget)["input_ids"]
        if len(ids) < self.budget:
            return ids, ""
        every = self.tokenizer(text, verbose=False)["input_ids"]
        left_over = self.tokenizer.decode(every[self.budget :], skip_special_tokens=True)
        return ids, left_over.strip()

    @torch.no_grad()  # not inference mode: training uses the states too
    def encode(self, rows: list[list[int]], image_mode: bool = False) -> list[Tensor]:
        """Return each row's states [L_i, D] without those of the template before the prompt.

        Rows of one length run together and nothing is padded: a causal model doesn't see what would stand to
        the right, so this equals the official padded run.
        """
        states: dict[int, Tensor] = {}
        for chosen in same_length(rows):
            ids = torch.tensor([rows[i] for i in chosen], device=self.model.device)
            out = self.model(input_ids=ids, use_cache=False).last_hidden_state  # [b, L, D]
            # A copy, lest a view keep the template's states and the whole batch alive.
            states |= {i: row[self.crops[image_mode] :].clone() for i, row in zip(chosen, out, strict=True)}
        return [states[i] for i in range(len(rows))]


def same_length(rows: list[list[int]]) -> list[tuple[int, ...]]:
    """Return the indices of the rows in groups of one length, at most `ROWS` each."""
    by_length: dict[int, list[int]] = {}
    for i, row in enumerate(rows):
        by_length.setdefault(len(row), []).append(i)
    return [tuple(same[i : i + ROWS]) for same in by_length.values() for i in range(0, len(same), ROWS)]


def shorten(config: PretrainedConfig, skip: int) -> PretrainedConfig:
    """Drop a decoder's last `skip` layers from its config, in place: what isn't built isn't read either."""
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
        dtype or config.dtype,
        config=shorten(inside or config, skip),
        **({"key_mapping": _INSIDE} if inside else {}),
    )
    model.norm = nn.Identity()
    return model


def read_config(path: Path) -> PretrainedConfig:
    """Read a folder's config.json; raise `MissingError` when it isn't one of a transformers model."""
    try:
        return AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise MissingError(f"{path} holds no model that transformers can read: {_line(error)}") from error


def load_strictly(
    kind: type, path: Path, device: torch.device | str, dtype: torch.dtype | None, **options: object
) -> PreTrainedModel:
    """Load a transformers model; a tensor that the files lack is a `MissingError`, never invented."""
    try:
        with _quiet():
            model, found = kind.from_pretrained(
                path,
                dtype=dtype or "auto",
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
                **options,
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise MissingError(f"the model in {path} can't be read: {_line(error)}") from error
    if missing := sorted(found["missing_keys"]):
        raise MissingError(
            f"the model in {path} lacks {len(missing)} tensors ({missing[0]}, …)",
            "download the folder again, or check that its config.json belongs to its weights",
        )
    return model.to(device).eval().requires_grad_(False)


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """Load a folder's tokenizer from its own files."""
    try:
        return AutoTokenizer.from_pretrained(
            path,
            local_files_only=True,
            trust_remote_code=False,
            padding_side="right",
            truncation_side="right",
        )
    except (OSError, ValueError, ImportError) as error:  # ImportError: it tried older formats
        raise MissingError(f"{path} holds no tokenizer: {_line(error)}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from listing the tensors left out on purpose, and from drawing bars of its own."""
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
