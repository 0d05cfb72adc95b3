"""A rewriter that asks a chat model for a structured caption."""

from __future__ import annotations

from typing import Any

from hy_core.errors import HyError
from hy_core.rewrite import Draft, Rewriter

from hy_data.captions.repair import read_answer
from hy_data.captions.schema import CaptionError, clean
from hy_data.rewriting import instructions

MOST_PROMPT = 6000
"""Characters of a prompt that a model gets; the text encoders read far less."""


class ChatRewriter(Rewriter):
    """Asks `chat` for the caption and renders all of its fields as a training caption."""

    compares = True
    """Whether the model is also asked if its caption means what the prompt means."""

    def chat(self, system: str, user: str) -> str:
        """Return the model's answer; `HyError` if there is none."""
        raise NotImplementedError

    def draft(self, prompt: str, mode: str, complaint: str = "") -> Draft:
        """Ask for a caption; an answer without one is asked for once more."""
        if len(prompt) > MOST_PROMPT:
            raise HyError(f"it has {len(prompt)} characters, over {MOST_PROMPT}")
        for attempt in (1, 2):
            answer = self.chat(instructions.system(mode), instructions.request(prompt, complaint))
            try:
                found = read_answer(answer)
            except CaptionError as error:
                if attempt == 2:
                    raise
                complaint = clean(error.message, 160)
                continue
            caption: dict[str, Any] = found.caption.to_json()
            caption.pop("tags", None)
            return Draft(found.caption.text(), caption)
        raise AssertionError

    def agrees(self, prompt: str, draft: Draft) -> str:
        """Ask the model what its caption lost; an answer that isn't one line of text counts as nothing."""
        if not self.compares:
            return ""
        answer = clean(self.chat(instructions.COMPARE, instructions.comparison(prompt, draft.text)), 200)
        return "" if not answer or "SAME" in answer.upper()[:20] else answer
