"""Both text models together: load them, encode prompts, free their memory."""

from __future__ import annotations

import gc
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from hy_core.errors import HyError, MissingError
from hy_core.text.clip import Clip
from hy_core.text.llm import Llm
from hy_core.text.template import OFFICIAL, Templates

if TYPE_CHECKING:
    from collections.abc import Sequence

# Folder names by layout: language model, its tokenizer, CLIP, its tokenizer.
_LAYOUTS = {
    "pocket": ("llm", "llm", "clip", "clip"),
    "diffusers": ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"),
    "official": ("text_encoder", "text_encoder", "text_encoder_2", "text_encoder_2"),
    "official, picture read": ("llava_llama_image", "llava_llama_image", "text_encoder_2", "text_encoder_2"),
    "official, image to video": ("text_encoder_i2v", "text_encoder_i2v", "text_encoder_2", "text_encoder_2"),
}
_OWN_TEMPLATES = "templates.json"  # beside a language model that has its own
_SHOWN = 60  # characters of a cut prompt in the warning


@dataclass(frozen=True)
class Encoded:
    """B encoded prompts: `text`, B tensors [L_i, D_llm] without padding, and `pooled` [B, D_clip]."""

    text: list[Tensor]
    pooled: Tensor


class TextEncoder:
    """The language model and CLIP, from loading to freeing.

    with TextEncoder.load(folder, "cuda", torch.float16) as encoder:
        encoded = encoder.encode(["a red circle moves right"])
    """

    def __init__(self, llm: Llm, clip: Clip) -> None:
        self.llm: Llm | None = llm
        self.clip: Clip | None = clip
        self._warned: set[str] = set()

    @classmethod
    def load(
        cls, folder: Path | str, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
    ) -> TextEncoder:
        """Load both models from a model folder in the pocket, diffusers or official layout.

        Only the folder is read, and no code in it is run. `dtype` None keeps the dtype of each file. Raises
        `MissingError` when a folder or a tensor isn't there, `HyError` for damaged files.
        """
        llm, llm_tokenizer, clip, clip_tokenizer = _find(Path(folder))
        own = llm / _OWN_TEMPLATES
        templates = Templates.load(own) if own.is_file() else OFFICIAL
        return cls(
            Llm.load(llm, llm_tokenizer, templates, device, dtype),
            Clip.load(clip, clip_tokenizer, device, dtype),
        )

    def encode(self, prompts: Sequence[str], image_mode: bool = False) -> Encoded:
        """Encode prompts, each on its own: no row depends on the others. Equal prompts are run once.

        `image_mode` takes the template for single images (videos of one frame). A prompt that is longer than
        the models read is cut, with one warning. Raises `HyError` after `free`.
        """
        if self.llm is None or self.clip is None:
            raise HyError("the text encoder was freed", "load it again to encode more prompts")
        distinct = list(dict.fromkeys(prompts))
        read = [(self.llm.tokens(prompt, image_mode), self.clip.tokens(prompt)) for prompt in distinct]
        for prompt, (by_llm, by_clip) in zip(distinct, read, strict=True):
            self._warn(
                prompt, self.llm.budget - self.llm.crops[image_mode], by_llm[1], self.clip.budget, by_clip[1]
            )
        states = self.llm.encode([by_llm[0] for by_llm, _ in read], image_mode)
        pooled = self.clip.encode([by_clip[0] for _, by_clip in read])
        where = {prompt: i for i, prompt in enumerate(distinct)}
        rows = [where[prompt] for prompt in prompts]
        return Encoded([states[i] for i in rows], pooled[rows])

    def _warn(self, prompt: str, llm_limit: int, llm_cut: str, clip_limit: int, clip_cut: str) -> None:
        if not (llm_cut or clip_cut) or prompt in self._warned:
            return
        self._warned.add(prompt)
        parts = [
            f"{name} reads {limit} tokens ({f'cut from {_short(cut)}' if cut else 'nothing cut'})"
            for name, limit, cut in (
                ("the language model", llm_limit, llm_cut),
                ("CLIP", clip_limit, clip_cut),
            )
        ]
        warnings.warn(f"long prompt: {'; '.join(parts)}", stacklevel=3)

    def free(self) -> None:
        """Release both models and their memory on the CPU and the GPU."""
        self.llm = self.clip = None
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.free()


def _find(folder: Path) -> tuple[Path, Path, Path, Path]:
    """Return the four folders of the first layout that `folder` has."""
    for names in _LAYOUTS.values():
        llm, llm_tokenizer, clip, clip_tokenizer = (folder / name for name in names)
        if all((folder / name).is_dir() for name in names):
            return llm, llm_tokenizer, clip, clip_tokenizer
    raise MissingError(
        f"no text encoders in {folder}",
        "it needs text_encoder/ and text_encoder_2/ with their tokenizers (or llm/ and clip/)",
    )


def _short(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")
