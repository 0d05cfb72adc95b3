"""The templates around a prompt that the language model reads.

The released weights were trained with exactly these strings: one more space changes the numbers. Needs no torch.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hy_core.errors import HyError
from hy_core.files import write_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MAX_TOKENS = 1 << 16
# A tokenizer with this token is Llama 3's, for which the number of template tokens is known.
_LLAMA3_MARK, _LLAMA3_ID = "<|start_header_id|>", 128006


@dataclass(frozen=True)
class Template:
    """The text before and after the prompt.

    `known_crop` is the number of tokens before the prompt (the start token included) that the official code
    removes; None where only the tokenizer determines it.
    """

    before: str
    after: str
    known_crop: int | None = None

    def fill(self, prompt: str) -> str:
        """Return the text that the language model reads."""
        return f"{self.before}{prompt}{self.after}"

    def crop(self, tokenizer: PreTrainedTokenizerBase) -> int:
        """Return how many leading tokens belong to the template, measured with this tokenizer.

        Raises `HyError` when it is Llama 3's tokenizer and the number isn't the official one: the states
        would be cut in the wrong place.
        """
        # What two prompts have in common, not the template alone: at its end it may be split otherwise, and
        # some tokenizers end every text with a token of their own.
        one, other = (tokenizer(self.fill(prompt))["input_ids"] for prompt in ("a", "1"))
        same = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
        if same is None:
            raise HyError(
                "the tokenizer makes the same tokens of different prompts",
                "use the tokenizer files that came with the checkpoint",
            )
        llama3 = tokenizer.convert_tokens_to_ids(_LLAMA3_MARK) == _LLAMA3_ID
        if llama3 and self.known_crop is not None and same != self.known_crop:
            raise HyError(
                f"the tokenizer makes {same} tokens of the template, the official one {self.known_crop}",
                "use the tokenizer files that came with the checkpoint",
            )
        return same


@dataclass(frozen=True)
class Templates:
    """A model's templates for videos and single images, and how many tokens of a prompt it reads.

    `tokens` counts what stays after the cut, with the template's own trailing tokens.
    """

    video: Template
    image: Template
    tokens: int = 256

    def budget(self, tokenizer: PreTrainedTokenizerBase) -> int:
        """Return the length of the longest token sequence that the language model reads.

        It follows from the video template in image mode too, as in the official code: a single image's prompt
        may have 315 tokens instead of 256, because its template is shorter.
        """
        return self.tokens + self.video.crop(tokenizer)

    def save(self, path: Path) -> None:
        """Write the templates beside a language model, for `Templates.load`."""
        write_json(path, asdict(self), indent=2)

    @classmethod
    def load(cls, path: Path) -> Templates:
        """Read what `save` wrote; raises HyError for anything else."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            video, image, tokens = Template(**data["video"]), Template(**data["image"]), int(data["tokens"])
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise HyError(f"{path} doesn't hold prompt templates: {error}") from None
        texts = (video.before, video.after, image.before, image.after)
        if not all(isinstance(text, str) for text in texts) or not 0 < tokens <= _MAX_TOKENS:
            raise HyError(
                f"{path} doesn't hold prompt templates", f"expected texts, and tokens from 1 to {_MAX_TOKENS}"
            )
        return cls(video, image, tokens)


def _turn(role: str) -> str:
    return f"<|start_header_id|>{role}<|end_header_id|>\n\n"


_END = "<|eot_id|>"
_PICTURE = (
    "Describe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships "
    "of the objects and background:"
)
_ASPECTS = (
    " 1. The main content and theme of the video."
    "2. The color, shape, size, texture, quantity, text, and spatial relationships of the objects."
    "3. Actions, events, behaviors temporal relationships, physical movement changes of the objects."
    "4. background environment, light, style and atmosphere."
    "5. camera angles, movements, and transitions used in the video:"
)
_FILM = "Describe the video by detailing the following aspects:" + _ASPECTS
_FILM_OF_PICTURE = (
    "Describe the video by detailing the following aspects according to the reference image:" + _ASPECTS
)

OFFICIAL = Templates(
    video=Template(_turn("system") + _FILM + _END + _turn("user"), _END, known_crop=95),
    image=Template(_turn("system") + _PICTURE + _END + _turn("user"), _END, known_crop=36),
)
# The image-to-video checkpoints' words. `<image>` is one token here; the caller of the model expands it. The
# image template's official crop (36) leaves part of the template in, so the official code never gets to use
# it.
_ANSWER = _END + _turn("assistant")
OFFICIAL_I2V = Templates(
    video=Template(
        _turn("system") + "<image>\n" + _FILM_OF_PICTURE + _END + "\n\n" + _turn("user"),
        _ANSWER,
        known_crop=103,
    ),
    image=Template(_turn("system") + "<image>\n" + _PICTURE + _END + _turn("user"), _ANSWER),
)
