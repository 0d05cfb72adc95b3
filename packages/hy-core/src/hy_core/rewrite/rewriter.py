"""The interface of rewriters, and the loop around them: draft, self-check, one revision, else the original prompt."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hy_core.errors import HyError
from hy_core.rewrite.check import check
from hy_core.rewrite.language import language_of

log = logging.getLogger(__name__)

MODES = ("normal", "master")
"""Normal keeps the intent; Master adds composition, lighting, camera and quality."""
_MOST_CHARACTERS = 20_000


@dataclass(frozen=True)
class Draft:
    """What a back-end proposes: the text, its structured caption, and what was left out or changed.

    With `is_checked` the back-end has accounted in `warnings` for everything that the text lacks, and no self-check
    follows.
    """

    text: str
    caption: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    is_checked: bool = False


class Rewriter:
    """A back-end. `name` identifies its model in the provenance."""

    name: str = ""

    def draft(self, prompt: str, mode: str, complaint: str = "") -> Draft:
        """Return a rewrite of a prompt; `complaint` says what was wrong with the last one. `HyError` for none."""
        raise NotImplementedError

    def agrees(self, prompt: str, draft: Draft) -> str:
        """Return what differs in meaning between prompt and draft in the back-end's own judgement, "" for nothing."""
        return ""


@dataclass(frozen=True)
class Rewrite:
    """A prompt and what became of it; `text` equals `original` if the rewrite was refused, and a warning says why."""

    original: str
    text: str
    caption: Mapping[str, Any]
    model: str
    mode: str
    language: str
    warnings: tuple[str, ...] = ()

    def summary(self) -> dict[str, Any]:
        """Return plain JSON values: what `hy rewrite --json` prints."""
        return {
            "original": self.original,
            "rewritten": self.text,
            "caption": dict(self.caption),
            "model": self.model,
            "mode": self.mode,
            "language": self.language,
            "warnings": list(self.warnings),
        }

    def record(self) -> dict[str, str]:
        """Return what a clip's provenance holds of it."""
        return {"original": self.original, "model": self.model, "mode": self.mode}


def rewrite(rewriter: Rewriter, prompt: str, mode: str = "normal") -> Rewrite:
    """Rewrite a prompt. Whatever goes wrong, the result is usable: the original prompt with one warning."""
    language = language_of(prompt)

    def original(why: str) -> Rewrite:
        return Rewrite(
            prompt, prompt, {}, rewriter.name, mode, language, (f"the prompt is used as it is: {why}",)
        )

    plain = clean(prompt)
    if not plain:
        return original("it is empty")
    problem = ""
    for _ in range(2):
        try:
            draft = rewriter.draft(plain, mode, problem)
            text = clean(draft.text)
            if not text:
                return original("the rewriter answered nothing")
            problem = "" if draft.is_checked else check(plain, text, mode) or rewriter.agrees(plain, draft)
        except HyError as error:
            return original(error.message)
        except Exception as error:  # a back-end's library may raise anything
            log.debug("rewriter %s", rewriter.name, exc_info=True)
            return original(
                f"{rewriter.name} failed ({type(error).__name__}: {' '.join(str(error).split())[:120]})"
            )
        if not problem:
            return Rewrite(prompt, text, draft.caption, rewriter.name, mode, language, draft.warnings)
    return original(f"its rewrite changes the meaning ({problem})")


def clean(text: str) -> str:
    """Return a text in one line without control characters, of at most 20,000 characters."""
    plain = "".join(" " if unicodedata.category(one)[0] == "C" else one for one in text[:_MOST_CHARACTERS])
    return " ".join(plain.split())
